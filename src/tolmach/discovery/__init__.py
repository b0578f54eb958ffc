"""Finds the chat assistants of a page: pages in, findings out, and nothing is fetched here.

`recognise` looks at one page and at those that were fetched since because it wanted them
(`Findings.wanted`); `tolmach.pages.search` fetches. `from_traffic` looks at recorded exchanges.
"""

from tolmach.discovery.findings import Evidence, Findings, Found, MessageLimit, Missing, Page, Wanted
from tolmach.discovery.recognise import links, recognise
from tolmach.discovery.traffic import Traffic, from_traffic

__all__ = [
    "Evidence",
    "Findings",
    "Found",
    "MessageLimit",
    "Missing",
    "Page",
    "Traffic",
    "Wanted",
    "from_traffic",
    "links",
    "recognise",
]
