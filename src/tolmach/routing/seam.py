"""Join the text of a rescue to an answer that broke off.

The rescue was either given the answer so far as a prefill, so that it goes on, or was asked again, so that it begins
again. What it repeats of the answer is taken away; text that is not known to be a repetition is never lost.
"""

from typing import Literal

__all__ = ["Joint", "Seam"]

Joint = Literal["continued", "repeated", "overlap", "rewritten"]


class Seam:
    r"""Gives of a rescue's text what is new. However its pieces are cut, the text is the same in the end.

    `so_far` is the answer that the caller has, `prefilled` whether the rescue was given it to go on from. A repetition
    counts from `least` characters on, white space not counted: fewer may be alike by chance. The rules, in their order:

    1. Nothing so far: all is new (`continued`).
    2. The rescue repeats the whole answer so far: what follows is new (`repeated`). A prefilled one must repeat at
       least `least` characters; one that was asked again and ends within the answer so far adds nothing.
    3. It begins with the end of the answer so far, within the last `window` characters: the longest such piece is
       taken away (`overlap`).
    4. It was prefilled: all is new (`continued`).
    5. It was asked again and words it differently, but comes to the end of the answer so far, at the latest `window`
       characters after its length: what follows is new (`overlap`). The end is the last `least` characters.
    6. It never comes there: after an empty line it stands as it is (`rewritten`), without the lines at its beginning
       that are the same. The caller then reads some of it twice in other words, and loses nothing.

    What is not decided is held back. The time is linear in the text; the memory is that of `so_far` and what is held.
    """

    def __init__(self, so_far: str, prefilled: bool, *, least: int = 16, window: int = 2000) -> None:
        self.notice: Joint | None = None
        """Which rule it was, once that is known; always after `close`."""
        self._old = so_far
        self._prefilled = prefilled
        self._end = _end_with(so_far, least)
        """So many characters at the end are a repetition; 0 if all the text has fewer."""
        self._limit = len(so_far) + window
        self._same = 0
        """So many characters of the rescue are those at the beginning of `so_far`."""
        self._at = max(0, len(so_far) - window)
        """The first place in `so_far` where the rescue may begin as an overlap."""
        self._held: list[str] = []
        self._length = 0
        self._recent = ""
        self._stage: Literal["compare", "overlap", "search"] = "compare"
        if not so_far or (prefilled and not self._end):
            self._decide("continued")

    def feed(self, text: str) -> str:
        """The next piece of the rescue's text; gives what of it, and of what was held back, is new."""
        if self.notice is not None or not text:
            return text
        if self._stage == "compare":
            return self._compare(text)
        return self._overlap(text) if self._stage == "overlap" else self._search(text)

    def close(self) -> str:
        """The rescue's text is whole; gives what was still held back."""
        if self.notice is not None:
            return ""
        if self._stage == "compare":
            return self._ended_within()
        if self._prefilled:
            return self._decide("continued", "".join(self._held))
        return self._rewritten()

    def _decide(self, joint: Joint, new: str = "") -> str:
        self.notice = joint
        return new

    def _compare(self, text: str) -> str:
        """Rule 2: the beginning is that of the answer so far."""
        same = _common(self._old, self._same, text)
        self._same += same
        if self._same == len(self._old):
            return self._decide("repeated", text[same:])
        if same == len(text):
            return ""
        if not self._prefilled and self._end and self._same >= self._end:
            return self._look(self._old[: self._same], text[same:])
        self._stage = "overlap"
        return self._overlap(self._old[: self._same] + text[same:])

    def _ended_within(self) -> str:
        """The whole rescue is a beginning of the answer so far."""
        if not self._prefilled:
            return self._decide("repeated")
        new = self._overlap(self._old[: self._same])
        return new if self.notice is not None else self._decide("continued", "".join(self._held))

    def _overlap(self, text: str) -> str:
        """Rule 3: the beginning is an end of the answer so far. `_at` is the first place that is still possible."""
        self._held.append(text)
        held = "".join(self._held)
        self._held = [held]
        last = len(self._old) - self._end
        if self._end:
            inside = self._old.find(held, self._at)
            if 0 <= inside <= last and inside + len(held) < len(self._old):
                self._at = inside
                return ""
            for place in range(max(self._at, len(self._old) - len(held)), last + 1):
                if held.startswith(self._old[place:]):
                    return self._decide("overlap", held[len(self._old) - place :])
        if self._prefilled:
            return self._decide("continued", held)
        return self._look("", held)

    def _look(self, known: str, rest: str) -> str:
        """Rule 5: the end of the answer so far comes later, and not within `known`, where both are the same."""
        self._stage = "search"
        self._held = [known]
        self._length = len(known)
        if not self._end:
            return self._rewritten(rest)
        # It may begin in what is the same.
        self._recent = known[len(known) - self._end + 1 :] if known else ""
        return self._search(rest)

    def _search(self, text: str) -> str:
        end = self._old[-self._end :]
        seen = self._recent + text[: self._limit - self._length]
        place = seen.find(end)
        if place >= 0:
            return self._decide("overlap", text[place + len(end) - len(self._recent) :])
        if self._length + len(text) >= self._limit:
            return self._rewritten(text)
        self._held.append(text)
        self._length += len(text)
        self._recent = seen[max(0, len(seen) - self._end + 1) :]
        return ""

    def _rewritten(self, text: str = "") -> str:
        """Rule 6, from the beginning of the line in which it differs."""
        whole = "".join(self._held) + text
        line = whole.rfind("\n", 0, self._same) + 1
        newlines = len(self._old) - len(self._old.rstrip("\n"))
        return self._decide("rewritten", "\n" * max(0, 2 - newlines) + whole[line:])


def _end_with(text: str, least: int) -> int:
    """The length of the shortest end of a text with so many characters that are not white space; 0 if none has."""
    for length in range(1, len(text) + 1):
        least -= not text[-length].isspace()
        if least <= 0:
            return length
    return 0


def _common(old: str, start: int, new: str) -> int:
    """How many characters of `new` are those of `old` from `start` on."""
    if old.startswith(new, start):
        return len(new)
    for place, (one, other) in enumerate(zip(old[start : start + len(new)], new, strict=False)):
        if one != other:
            return place
    return len(old) - start
