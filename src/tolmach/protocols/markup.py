"""HTML of strangers made safe to parse: the parser takes quadratic time for deep nesting and for crowds of attributes.

What nothing here reads (comments, styles, drawings, most scripts) is left out, and the page is cut
where it nests deeper than browsers build it, so that parsing takes time in proportion to its size.
"""

import re

__all__ = ["MAX_ATTRIBUTES", "MAX_DEPTH", "trimmed"]

MAX_DEPTH = 512
"""As deep as Chromium builds a page."""
MAX_ATTRIBUTES = 256

_SPACE = rb"[ \t\n\r\f]"
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\r\f>]*+)"
_ATTRIBUTE = rb"(?:=[^ \t\n\r\f/>=]*+|[^ \t\n\r\f/>=]++)(?:" + _SPACE + rb"*+=" + _SPACE + rb"*+" + _VALUE + rb")?+"
_TAG = re.compile(rb"<(?:(!--)|(/?)([a-zA-Z][^ \t\n\r\f/>]*+)((?:[ \t\n\r\f/]++|" + _ATTRIBUTE + rb")*+)>?)")
"""A comment's beginning, or a whole tag as the standard tokenises it (HTML, 13.2.5)."""
_ONE = re.compile(_ATTRIBUTE)

_DROPPED = (b"style", b"svg", b"script")
_ENDS = {name: re.compile(rb"</" + name + rb"(?=[\s/>])", re.I) for name in _DROPPED}
_KEPT_SCRIPT = re.compile(rb"wpaicgParams\s*=")
_KEPT_TYPE = re.compile(rb"type\s*=\s*[\"']?text/(?:x-)?(?:template|html)", re.I)

_VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr".split())
_IMPLIED = frozenset(b"p li dt dd option optgroup tr tbody thead tfoot colgroup rp rt html head body".split())
"""Elements whose next of the kind ends them: they do not nest by themselves."""
_FORMATTING = frozenset(b"a b big code em font form i nobr s small strike strong tt u".split())
"""The end of one of these closes nothing that stands inside it (HTML, 13.2.6.4.7)."""
_CELLS = frozenset((b"td", b"th"))
_BARRIERS = _CELLS | frozenset(b"table caption applet marquee object template".split())


def trimmed(body: bytes) -> bytes:
    """The page without what no protocol reads, and cut where it goes deeper than `MAX_DEPTH`.

    It is also cut at an element with more than `MAX_ATTRIBUTES` attributes.
    """
    kept: list[bytes] = []
    stack: list[bytes] = []
    unended: set[bytes] = set()
    at = begin = 0
    while match := _TAG.search(body, at):
        at = match.end()
        if match[1]:
            end = body.find(b"-->", match.start() + 2)
            kept.append(body[begin : match.start()])
            if end < 0:
                return b"".join(kept)
            at = begin = end + 3
            continue
        name = match[3].lower()
        if match[2]:
            _end(stack, name)
            continue
        if _crowded(match[4]):
            return b"".join((*kept, body[begin : match.start()]))
        if name in _ENDS and name not in unended:
            end_tag = _ENDS[name].search(body, at)
            if end_tag is None:
                unended.add(name)
            elif not _is_read(name, match[4], body, at, end_tag.start()):
                kept.append(body[begin:at])
                at = begin = end_tag.start()
        _start(stack, name)
        if len(stack) > MAX_DEPTH:
            return b"".join((*kept, body[begin : match.start()]))
    kept.append(body[begin:])
    return b"".join(kept)


def _is_read(name: bytes, attributes: bytes, body: bytes, begin: int, end: int) -> bool:
    """Whether a protocol or the discovery reads what stands in this element."""
    if name != b"script":
        return False
    return _KEPT_TYPE.search(attributes) is not None or _KEPT_SCRIPT.search(body, begin, end) is not None


def _crowded(attributes: bytes) -> bool:
    if len(attributes) < 2 * MAX_ATTRIBUTES:
        return False
    return sum(1 for _ in _ONE.finditer(attributes)) > MAX_ATTRIBUTES


def _start(stack: list[bytes], name: bytes) -> None:
    if name in _VOID or name in _IMPLIED:
        return
    if name in _CELLS:
        # A cell ends the one before it, with all that stands open in that.
        for depth in range(len(stack) - 1, -1, -1):
            if stack[depth] in _CELLS:
                del stack[depth:]
                break
            if stack[depth] == b"table":
                break
    stack.append(name)


def _end(stack: list[bytes], name: bytes) -> None:
    for depth in range(len(stack) - 1, -1, -1):
        if stack[depth] == name:
            if name in _FORMATTING:
                del stack[depth]
            else:
                del stack[depth:]
            return
        if stack[depth] in _BARRIERS and name not in _BARRIERS:
            return
