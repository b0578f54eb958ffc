"""A conversation as `tolmach chat` holds it: questions and answers, saved and loaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from tolmach.chat import AnswerText, Conversation, Delta, Event, Notice
from tolmach.cli.options import Target
from tolmach.errors import ConfigError

__all__ = ["Talk", "Turn"]


class Turn(Struct, frozen=True):
    """A question or an answer."""

    role: Literal["user", "assistant"]
    content: str


class _Saved(Struct):
    messages: list[Turn]
    system: str | None = None
    conversation: Conversation | None = None


class Talk:
    """A conversation: its turns, and the service's own state of it."""

    def __init__(self, target: Target, system: str | None = None) -> None:
        self.target = target
        self.system = system
        self.messages: list[Turn] = []
        self.conversation: Conversation | None = None
        self._unanswered = ""

    def new(self) -> None:
        """Forget what was said; the model and the system message stay."""
        self.messages, self.conversation, self._unanswered = [], None, ""

    def ask_another(self, name: str) -> bool:
        """Ask another model from now on, as `Target.ask_another`. The messages go along."""
        # The service's own conversation does not: it belongs to the model that led it.
        changed = self.target.ask_another(name)
        self.conversation = None
        return changed

    async def ask(self, question: str, show: Callable[[str], None], remark: Callable[[str], None]) -> None:
        """Ask and show the answer. Of an answer that is stopped or breaks, what came stays."""
        asked = [*self.messages, Turn("user", question)]
        self._unanswered = question
        answer = AnswerText()
        conversation = None
        whole = False
        events = self.target.client.events(
            model=self.target.model, messages=self._wire(asked), conversation=self.conversation
        )
        try:
            async for event in events:
                answer.feed(event)
                if isinstance(event, Delta):
                    show(event.text)
                elif isinstance(event, Conversation):
                    conversation = event
                elif note := _note(event):
                    remark(note)
            whole = True
        finally:
            await events.aclose()
            if text := str(answer):
                self.messages = [*asked, Turn("assistant", text)]
                self._unanswered = ""
                # A service may not know of an answer that it did not end: the next question tells it all.
                self.conversation = conversation if whole else None

    async def retry(self, show: Callable[[str], None], remark: Callable[[str], None]) -> None:
        """Ask the last question again; its first answer goes when another one comes.

        Raises `ConfigError` when nothing was asked yet.
        """
        if self._unanswered:
            await self.ask(self._unanswered, show, remark)
            return
        last = next((i for i in reversed(range(len(self.messages))) if self.messages[i].role == "user"), None)
        if last is None:
            raise ConfigError("nothing was asked yet")
        before = self.messages, self.conversation
        question = self.messages[last].content
        # Without the service's own conversation, which holds the answer that is asked for again.
        self.messages, self.conversation = self.messages[:last], None
        try:
            await self.ask(question, show, remark)
        finally:
            if self._unanswered:
                (self.messages, self.conversation), self._unanswered = before, ""

    def save(self, file: Path) -> None:
        """Write the conversation. Raises `ConfigError` when the file cannot be written."""
        if file.suffix.lower() == ".md":
            turns = [*([("System", self.system)] if self.system else [])]
            turns += [(turn.role.capitalize(), turn.content) for turn in self.messages]
            body = "\n".join(f"## {who}\n\n{text.rstrip()}\n" for who, text in turns)
        else:
            saved = _Saved(self.messages, self.system, self.conversation)
            body = msgspec.json.format(msgspec.json.encode(saved), indent=2).decode() + "\n"
        try:
            # Private, like the history: what one talks about is no one else's.
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
                out.write(body)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be written: {_reason(error)}") from error

    def load(self, file: Path) -> None:
        """Go on with a saved conversation. Raises `ConfigError` when it cannot be read."""
        try:
            saved = msgspec.json.decode(file.read_bytes(), type=_Saved)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ConfigError(f"{file}: not a conversation that /save wrote as JSON: {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be read: {_reason(error)}") from error
        self.system, self.messages, self.conversation = saved.system, saved.messages, saved.conversation
        self._unanswered = ""

    def _wire(self, turns: list[Turn]) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *({"role": turn.role, "content": turn.content} for turn in turns)]


def _note(event: Event) -> str:
    """What is to be said beside the answer; a status is not worth a line."""
    return f"{event.kind}: {event.text}" if isinstance(event, Notice) and event.kind != "status" else ""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
