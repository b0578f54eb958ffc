"""`anychat chat`: a conversation in the terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from anychat.chat import Conversation, Delta, Notice
from anychat.cli.failures import describe
from anychat.cli.options import Target, target_options
from anychat.cli.render import MarkdownStream, printable
from anychat.errors import AnychatError, ConfigError
from anychat.registry import resolve

__all__ = ["Talk", "chat"]

COMMANDS = {
    "/model": "/model NAME       ask another model, or PROVIDER/MODEL; alone: show the present one",
    "/system": "/system TEXT      set the system message; alone: remove it",
    "/new": "/new              start a new conversation",
    "/retry": "/retry            ask the last question again",
    "/history": "/history          show the conversation",
    "/save": "/save FILE        write the conversation, as JSON or (FILE.md) markdown",
    "/load": "/load FILE        go on with a conversation saved as JSON",
    "/help": "/help             show this",
    "/quit": "/quit             leave (also Ctrl-D)",
}


@click.command()
@target_options
@click.option("-s", "--system", default=None, help="System message.")
def chat(system: str | None, **target: Any) -> None:
    """Talk in the terminal, turn by turn.

    Ctrl-C stops an answer and not the program; Ctrl-D or /quit leaves. /help lists the commands.
    """
    asyncio.run(_run(Talk(Target(**target), system)))


class Talk:
    """A conversation: its messages, and the service's own state of it."""

    def __init__(self, target: Target, system: str | None) -> None:
        self.target = target
        self.system = system
        self.messages: list[dict[str, Any]] = []
        self.conversation: Conversation | None = None

    @property
    def who(self) -> str:
        return "/".join(part for part in (self.target.provider, self.target.model) if part) or "endpoint"

    def new(self) -> None:
        self.messages, self.conversation = [], None

    def set_model(self, name: str) -> None:
        """Ask another model from now on; the messages go along, the service's own conversation does not."""
        if self.target.provider is None or "/" in name:
            provider, model = resolve(name)
            self.target.provider = None
            name = f"{provider.__name__}/{model}"
        else:
            resolve(name, self.target.provider)
        self.target.model = name
        self.conversation = None

    def take_back(self) -> str:
        """The last question, which with its answer leaves the conversation. Raises `ConfigError` when there is none."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise ConfigError("nothing was asked yet")
        question: str = self.messages[asked[-1]]["content"]
        # Without the service's own conversation too: it holds the answer that is asked for again.
        self.messages, self.conversation = self.messages[: asked[-1]], None
        return question

    def save(self, file: Path) -> None:
        """Write the conversation. Raises `ConfigError` when the file cannot be written."""
        if file.suffix == ".md":
            body = "".join(f"## {m['role'].capitalize()}\n\n{m['content']}\n\n" for m in self.messages)
        else:
            value = {"system": self.system, "messages": self.messages, "conversation": self.conversation}
            body = msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
        try:
            file.write_text(body, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}") from error

    def load(self, file: Path) -> None:
        """Go on with a saved conversation. Raises `ConfigError` when it cannot be read."""
        try:
            saved = msgspec.json.decode(file.read_bytes(), type=_Saved)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{file}: not a saved conversation: {error}") from error
        self.system, self.messages, self.conversation = saved.system, saved.messages, saved.conversation

    async def ask(self, question: str, show: Callable[[str], None], remark: Callable[[str], None]) -> None:
        """Ask and show the answer. Of an answer that is stopped or breaks, what came stays."""
        asked = [*self.messages, {"role": "user", "content": question}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        events = self.target.client.events(
            model=self.target.model, messages=[*system, *asked], conversation=self.conversation
        )
        answer: list[str] = []
        try:
            async for event in events:
                if isinstance(event, Delta):
                    answer.append(event.text)
                    show(event.text)
                elif isinstance(event, Conversation):
                    self.conversation = event
                elif isinstance(event, Notice):
                    remark(f"{event.kind}: {printable(event.text)}")
        finally:
            await events.aclose()
            if answer:
                self.messages = [*asked, {"role": "assistant", "content": "".join(answer)}]


class _Saved(msgspec.Struct):
    messages: list[dict[str, Any]]
    system: str | None = None
    conversation: Conversation | None = None


class _Terminal:
    """Reads lines, draws answers, and does the `/` commands."""

    def __init__(self, talk: Talk) -> None:
        from rich.console import Console

        self.talk = talk
        self.console = Console()
        self._read = _reader(self)
        self.leaving = False

    def remark(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)

    def fail(self, error: AnychatError) -> None:
        self.console.print(describe(error), style="red", markup=False, highlight=False)

    async def run(self) -> None:
        self.remark(f"{self.talk.who}. /help lists the commands, Ctrl-D leaves.")
        while not self.leaving:
            try:
                line = (await self._read()).strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if not line:
                continue
            try:
                if line.startswith("/"):
                    await self.command(line)
                else:
                    await self.answer(line)
            except AnychatError as error:
                self.fail(error)

    async def answer(self, question: str) -> None:
        """One answer; Ctrl-C stops it and the conversation goes on."""
        loop = asyncio.get_running_loop()
        drawing = MarkdownStream(self.console) if self.console.is_terminal else None
        show = drawing.feed if drawing else lambda text: click.echo(text, nl=False)
        with drawing or _Plain():
            task = asyncio.ensure_future(self.talk.ask(question, show, self.remark))
            loop.add_signal_handler(signal.SIGINT, task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                self.remark("(stopped)")
            finally:
                loop.remove_signal_handler(signal.SIGINT)

    async def command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name not in COMMANDS:
            raise ConfigError(f"no command {name}; /help lists them")
        done: dict[str, Callable[[str], Awaitable[None] | None]] = {
            "/model": self._model,
            "/system": self._system,
            "/new": lambda _: self.talk.new(),
            "/retry": self._retry,
            "/history": lambda _: self._history(),
            "/save": lambda file: self._file(self.talk.save, file, "saved to"),
            "/load": lambda file: self._file(self.talk.load, file, "loaded"),
            "/help": lambda _: self.remark("\n".join(COMMANDS.values())),
            "/quit": lambda _: self._leave(),
        }
        waiting = done[name](rest)
        if waiting is not None:
            await waiting

    def _model(self, name: str) -> None:
        if name:
            self.talk.set_model(name)
        self.remark(self.talk.who)

    def _system(self, text: str) -> None:
        self.talk.system = text or None
        self.remark("system message set" if text else "no system message")

    async def _retry(self, _: str) -> None:
        last = next(
            (i for i in range(len(self.talk.messages) - 1, -1, -1) if self.talk.messages[i]["role"] == "user"), None
        )
        if last is None:
            raise ConfigError("nothing was asked yet")
        question = self.talk.messages[last]["content"]
        # Without the service's own conversation, which holds the answer that is asked for again.
        self.talk.messages, self.talk.conversation = self.talk.messages[:last], None
        await self.answer(question)

    def _history(self) -> None:
        for message in self.talk.messages:
            self.console.print(f"{message['role']}:", style="bold", markup=False)
            self.console.print(printable(message["content"]), markup=False, highlight=False)

    def _file(self, act: Callable[[Path], None], name: str, said: str) -> None:
        if not name:
            raise ConfigError("name a file")
        act(Path(name).expanduser())
        self.remark(f"{said} {name}")

    def _leave(self) -> None:
        self.leaving = True


class _Plain:
    """An answer into a pipe: as it is, with a line end behind it."""

    def __enter__(self) -> "_Plain":
        return self

    def __exit__(self, *_: object) -> None:
        click.echo()


def _history_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "anychat" / "history"


def _reader(terminal: _Terminal) -> Callable[[], Awaitable[str]]:
    """How a line is read: with editing and history on a terminal, else plainly."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):

        async def plain() -> str:
            line = await asyncio.to_thread(sys.stdin.readline)
            if not line:
                raise EOFError
            return line

        return plain

    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    file = _history_file()
    history: History
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        history = FileHistory(str(file))
    except OSError as error:
        terminal.remark(f"the history is not kept: {file}: {error.strerror}")
        history = InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        history=history, completer=WordCompleter(list(COMMANDS), sentence=True), complete_while_typing=False
    )

    async def edited() -> str:
        line: str = await session.prompt_async("> ")
        return line

    return edited


async def _run(talk: Talk) -> None:
    await _Terminal(talk).run()
