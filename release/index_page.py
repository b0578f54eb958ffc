"""README.md as the page of a package index, where a link to a file of the repository leads nowhere.

A hook of the build: hatchling calls it for the metadata of every sdist and wheel.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_NOTE = "The files that are named here are in the source distribution."

_FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)(?:#[^)\s]*)?\)")


class IndexPage(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": index_page(readme)}


def index_page(readme: str) -> str:
    """The text with the names of files in place of the links to them, and a sentence that says where they are."""
    # Every other part is a block of code, which stays as it is.
    parts = _FENCE.split(readme)
    parts[::2] = [_LINK.sub(_named, part) for part in parts[::2]]
    return "".join(parts).replace("\n## ", f"\n{_NOTE}\n\n## ", 1)


def _named(link: re.Match[str]) -> str:
    text, file = link.groups()
    return f"`{file}`" if text == file else f"{text} (`{file}`)"
