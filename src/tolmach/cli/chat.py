"""`tolmach chat`: a conversation in the terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from tolmach.cli.conversation import Talk
from tolmach.cli.failures import Reporting, describe
from tolmach.cli.options import Target, target_options
from tolmach.cli.output import new_console, say, say_answer
from tolmach.cli.render import MarkdownStream, markdown
from tolmach.errors import ConfigError, TolmachError
from tolmach.safe_text import printable

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

__all__ = ["COMMANDS", "chat"]

COMMANDS = {
    "/model": ("NAME", "ask another model, or PROVIDER/MODEL; alone: say which it is"),
    "/system": ("TEXT", "set the system message; alone: remove it"),
    "/new": ("", "start a new conversation"),
    "/retry": ("", "ask the last question again"),
    "/history": ("", "show the conversation"),
    "/save": ("FILE", "write the conversation, as JSON or (FILE.md) markdown"),
    "/load": ("FILE", "go on with a conversation saved as JSON"),
    "/help": ("", "show this"),
    "/quit": ("", "leave (also Ctrl-D)"),
}
"""Command -> its argument and what it does."""

_KEYS = "Enter asks, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D leaves."


@click.command()
@click.option("-s", "--system", default=None, metavar="TEXT", help="System message.")
@target_options
@click.pass_obj
def chat(reporting: Reporting, /, system: str | None, **target: Any) -> None:
    """Talk in the terminal, turn by turn.

    Ctrl-C stops an answer and not the program; Ctrl-D or /quit leaves; /help lists the commands.
    From a pipe every line is a question; the first that fails ends it, with its exit code.
    """
    talk = Talk(Target(**target), system)
    asyncio.run(_Conversation(talk, reporting).run())


class _Conversation:
    """Reads lines, draws answers, and does the `/` commands."""

    def __init__(self, talk: Talk, reporting: Reporting) -> None:
        self.talk = talk
        self._reporting = reporting
        self._attended = sys.stdin.isatty()
        self._answers = new_console()
        self._drawn = self._answers.is_terminal and not self._answers.is_dumb_terminal
        # Beside answers in a pipe nothing else may stand.
        self._remarks = self._answers if self._drawn else new_console(err=True)
        self._read = _edited(self.remark) if self._attended and self._drawn else _plain
        self._leaving = False

    def remark(self, text: str) -> None:
        # In a pipe a line stays a line, however long.
        self._remarks.print(printable(text), style="dim", markup=False, highlight=False, soft_wrap=not self._drawn)

    async def run(self) -> None:
        """Until the user leaves. Raises the error of a question that was not asked by a person at a terminal."""
        if not self._attended:
            await self._talk()
            return
        # A Ctrl-C that comes just as an answer has ended must not end the program.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            await self._talk()
        finally:
            signal.signal(signal.SIGINT, before)

    async def _talk(self) -> None:
        if self._attended:
            self.remark(f"{self.talk.target.site}: /help lists the commands. {_KEYS}")
        await self._introduce()
        while not self._leaving:
            try:
                line = await self._read()
            except KeyboardInterrupt:
                if self._attended:
                    continue
                raise
            except EOFError:
                return
            if not line.strip():
                continue
            if self._drawn and not self._attended:
                self._answers.print(f"> {printable(line.strip())}", style="bold")
            await self._do(line)

    async def _introduce(self) -> None:
        """The assistant of a page greets first."""
        assistant = await self.talk.target.introduced()
        if assistant is None:
            return
        from tolmach.cli.findings import introduction, others

        for line in (*introduction(assistant), others(assistant)):
            if line:
                self.remark(line)

    async def _do(self, line: str) -> None:
        try:
            if line.startswith("/"):
                await self._command(line.strip())
            else:
                await self._answer(lambda show: self.talk.ask(line.strip(), show, self.remark))
        except TolmachError as error:
            if not self._attended:
                raise
            self._fail(describe(error), error)
        except Exception as error:
            # Whatever went wrong, a bug of ours too, must not take the conversation with it.
            if not self._attended:
                raise
            self._fail(f"{type(error).__name__}: {error}. This was not expected; --debug shows where.", error)

    def _fail(self, text: str, error: Exception) -> None:
        if self._reporting.debug:
            self._reporting.tell(text, error)
        else:
            self._remarks.print(printable(text), style="red", markup=False, highlight=False)

    async def _answer(self, ask: Callable[[Callable[[str], None]], Awaitable[None]]) -> None:
        """One answer; Ctrl-C stops it and the conversation goes on."""
        drawing = MarkdownStream(self._answers) if self._drawn else _Plain()
        stopped = False
        with drawing:
            task = asyncio.ensure_future(ask(drawing.feed))
            with _interrupting(task), _unechoed():
                try:
                    await task
                except asyncio.CancelledError:
                    stopped = True
        if stopped and not self._attended:
            raise KeyboardInterrupt
        if stopped:
            self.remark("(stopped)")
        if self._drawn:
            self._answers.print()

    async def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name not in COMMANDS:
            raise ConfigError(f"no command {name}; /help lists them. A question that starts with / needs a space first")
        done: dict[str, Callable[[], Awaitable[None] | None]] = {
            "/model": lambda: self._model(rest),
            "/system": lambda: self._system(rest),
            "/new": self._new,
            "/retry": lambda: self._answer(lambda show: self.talk.retry(show, self.remark)),
            "/history": self._history,
            "/save": lambda: self._file(self.talk.save, rest, "saved to"),
            "/load": lambda: self._file(self.talk.load, rest, "loaded"),
            "/help": self._help,
            "/quit": self._leave,
        }
        waiting = done[name]()
        if waiting is not None:
            await waiting

    def _model(self, name: str) -> None:
        another = bool(name) and self.talk.ask_another(name)
        note = " (it is not told the key and cookies given at the start)" if another else ""
        self.remark(f"{self.talk.target.site}{note}")

    def _system(self, text: str) -> None:
        self.talk.system = text or None
        self.remark("system message set" if text else "no system message")

    def _new(self) -> None:
        self.talk.new()
        self.remark("a new conversation")

    def _history(self) -> None:
        if not self.talk.messages:
            self.remark("nothing was said yet")
        for turn in self.talk.messages:
            asked = f"> {printable(turn.content)}"
            if not self._drawn:
                say_answer(asked if turn.role == "user" else turn.content, nl=True)
            elif turn.role == "user":
                self._answers.print(asked, style="bold")
            else:
                self._answers.print(markdown(turn.content))
                self._answers.print()

    def _file(self, act: Callable[[Path], None], name: str, said: str) -> None:
        if not name:
            raise ConfigError("name a file, such as /save talk.json")
        try:
            file = Path(name).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"{name}: {error}") from error
        act(file)
        self.remark(f"{said} {file}: {len(self.talk.messages)} messages")

    def _help(self) -> None:
        width = max(len(f"{name} {argument}") for name, (argument, _) in COMMANDS.items())
        for name, (argument, what) in COMMANDS.items():
            self.remark(f"{f'{name} {argument}':<{width}}  {what}")
        self.remark(_KEYS)

    def _leave(self) -> None:
        self._leaving = True


class _Plain:
    """An answer into a pipe: as it is, with a line end behind it."""

    def __init__(self) -> None:
        self._open = False

    def __enter__(self) -> Self:
        return self

    def feed(self, text: str) -> None:
        say_answer(text)
        self._open = not text.endswith("\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            say()


@contextmanager
def _interrupting(task: "asyncio.Future[None]") -> Iterator[None]:
    """Ctrl-C cancels the task meanwhile."""
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(task.cancel))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _unechoed() -> Iterator[None]:
    """What is typed meanwhile is kept for the next question, and not shown in the midst of the answer."""
    try:
        import termios
    except ImportError:  # Windows, whose console echoes only what is read
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):  # not a terminal
        yield
        return
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


async def _plain() -> str:
    """The next line of standard input. Nothing else runs while it is waited for, so waiting may block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        line = sys.stdin.buffer.readline()
    finally:
        signal.signal(signal.SIGINT, before)
    if not line:
        raise EOFError
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("standard input: not UTF-8 text") from error


def _edited(remark: Callable[[str], None]) -> Callable[[], Awaitable[str]]:
    """Reads a question with editing, completion of commands, and the history of earlier ones."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    session: PromptSession[str] = PromptSession(
        history=_history(remark),
        completer=WordCompleter(list(COMMANDS), sentence=True),
        complete_while_typing=False,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="  ",
    )

    async def read() -> str:
        line: str = await session.prompt_async("> ")
        return line

    return read


def _keys() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: "KeyPressEvent") -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tolmach" / "history"


def _history(remark: Callable[[str], None]) -> "History":
    """The questions of earlier conversations, in a file that only the user can read."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    file = _history_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
    except OSError as error:
        remark(f"the history is not kept: {file}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(file))
