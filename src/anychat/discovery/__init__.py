"""Finds the chat assistants of a page: pages in, findings out, and nothing is fetched here.

`recognise` looks at one page and at those that were fetched since because it wanted them
(`Findings.wanted`); `anychat.discover` fetches. `from_traffic` looks at recorded exchanges.
"""

from anychat.discovery.findings import Evidence, Findings, Found, MessageLimit, Missing, Page, Wanted
from anychat.discovery.recognise import links, recognise
from anychat.discovery.traffic import Traffic, from_traffic

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
