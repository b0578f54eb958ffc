"""What the caller of a broken stream has been told, and what of another target's answer is new to it."""

from collections.abc import Iterable

from tolmach.chat import AnswerText, Conversation, Delta, Done, Event, Notice, Reasoning, ToolCallDelta
from tolmach.routing.seam import Seam

__all__ = ["Resumption"]


class Resumption:
    """One answer that goes on: `told` begins with what has reached the caller of it, and grows by what is new.

    `go_on` begins with the next target's answer, `feed` gives what of its events the caller is to be told.
    """

    def __init__(self, told: Iterable[Event] = ()) -> None:
        self.told: list[Event] = []
        self._seam = Seam("", prefilled=False)
        self._begun = False
        """Whether the caller has read some of the answer."""
        for event in told:
            self.tell(event)

    @property
    def possible(self) -> bool:
        """Whether another target may go on: a tool call that had begun is never resumed."""
        return not any(type(event) is ToolCallDelta for event in self.told)

    @property
    def text(self) -> str:
        """The text of the answer so far."""
        text = AnswerText()
        for event in self.told:
            text.feed(event)
        return str(text)

    def tell(self, event: Event) -> None:
        """Note an event that the caller is told. What ends an answer or stands beside it does not count."""
        rewritten = isinstance(event, Notice) and event.kind == "rewritten"
        if rewritten or isinstance(event, Delta | Reasoning | ToolCallDelta):
            self.told.append(event)
            self._begun = self._begun or not isinstance(event, Reasoning)

    def go_on(self, prefilled: bool) -> None:
        """Another target goes on; `prefilled` says whether it was given the answer so far as a prefill."""
        self._seam = Seam(self.text, prefilled)

    def feed(self, event: Event) -> list[Event]:
        """What of an event of that target is new to the caller; it is noted as told."""
        new = self._new(event)
        for one in new:
            self.tell(one)
        return new

    def _new(self, event: Event) -> list[Event]:
        if isinstance(event, Delta):
            return _delta(self._seam.feed(event.text))
        if isinstance(event, Done):
            return [*_delta(self._seam.close()), event]
        if isinstance(event, Reasoning):
            # Thought before the answer, which the caller is reading already.
            return [] if self._begun else [event]
        if isinstance(event, Notice | Conversation):
            # They are about the other target's own answer, of which the caller gets a part.
            return []
        return [event]


def _delta(text: str) -> list[Event]:
    return [Delta(text)] if text else []
