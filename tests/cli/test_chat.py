"""`tolmach chat`: the conversation it holds, and its life on a terminal."""

import re
import stat

import msgspec
import pytest

from tests.cli.terminal import PROMPT, Terminal
from tolmach.chat import Conversation
from tolmach.cli.conversation import Talk, Turn
from tolmach.cli.options import Target
from tolmach.demo.server import ThreadedDemo
from tolmach.errors import ConfigError, ConnectionLost, ModelNotFound, ProviderUnavailable

_TARGET = {
    "model": "",
    "provider": None,
    "base_url": None,
    "protocol": None,
    "settings": (),
    "api_key": None,
    "proxy": None,
    "cookies": None,
    "timeout": None,
    "ca": None,
    "insecure": False,
    "impersonate": None,
    "transport": None,
    "lenient": False,
}


def _target(**options: object) -> Target:
    return Target(**{**_TARGET, **options})  # type: ignore[arg-type]


def _talk(demo: ThreadedDemo, name: str = "Chatgpt4Online", system: str | None = None) -> Talk:
    return Talk(_target(provider=name, base_url=f"{demo.url}/{name}"), system)


async def _ask(talk: Talk, question: str) -> str:
    shown: list[str] = []
    await talk.ask(question, shown.append, shown.append)
    return "".join(shown)


# What it holds


async def test_questions_and_answers_are_kept_and_the_services_conversation_too(demo):
    talk = _talk(demo)
    first = await _ask(talk, "one")
    assert talk.messages == [Turn("user", "one"), Turn("assistant", first)]
    assert talk.conversation is not None
    await _ask(talk, "two")
    assert [turn.role for turn in talk.messages] == ["user", "assistant"] * 2


async def test_what_the_service_took_back_is_not_kept(demo):
    talk = _talk(demo, "ChatGpt")
    shown: list[str] = []
    remarks: list[str] = []
    await talk.ask("one [[fault:rewritten]]", shown.append, remarks.append)
    [remark] = remarks
    assert remark == f"rewritten: {talk.messages[-1].content}"
    assert talk.messages[-1].content != "".join(shown)


async def test_of_an_answer_that_breaks_what_came_stays_and_the_service_is_told_all_next(demo):
    talk = _talk(demo)
    await _ask(talk, "one")
    with pytest.raises(ConnectionLost):
        await _ask(talk, "two [[fault:cut=5]]")
    assert talk.messages[-1].role == "assistant"
    assert talk.messages[-1].content.startswith("## Chatgpt4Online")
    assert "Готово" not in talk.messages[-1].content
    assert talk.conversation is None


async def test_a_question_that_failed_is_not_in_the_conversation_and_can_be_asked_again(demo):
    talk = _talk(demo)
    await _ask(talk, "one")
    before = list(talk.messages), talk.conversation
    with pytest.raises(ProviderUnavailable):
        await _ask(talk, "two [[fault:500]]")
    assert (talk.messages, talk.conversation) == before
    with pytest.raises(ProviderUnavailable):
        await talk.retry(print, print)
    assert (talk.messages, talk.conversation) == before


async def test_retry_puts_another_answer_in_the_place_of_the_last(demo):
    talk = _talk(demo)
    await _ask(talk, "one")
    await _ask(talk, "two")
    shown: list[str] = []
    await talk.retry(shown.append, shown.append)
    assert [turn.content for turn in talk.messages if turn.role == "user"] == ["one", "two"]
    assert talk.messages[-1].content == "".join(shown)


async def test_a_retry_that_fails_leaves_the_answer_that_was_there(demo):
    talk = _talk(demo)
    await _ask(talk, "one")
    before = list(talk.messages), talk.conversation
    demo.faults["/Chatgpt4Online"] = "500"
    try:
        with pytest.raises(ProviderUnavailable):
            await talk.retry(print, print)
    finally:
        del demo.faults["/Chatgpt4Online"]
    assert (talk.messages, talk.conversation) == before
    await talk.retry(print, print)
    assert len(talk.messages) == 2


async def test_there_is_nothing_to_retry_at_the_start(demo):
    with pytest.raises(ConfigError, match="nothing was asked"):
        await _talk(demo).retry(print, print)


async def test_the_system_message_goes_with_every_question(demo):
    options = {"protocol": "openai", "base_url": f"{demo.url}/v1", "api_key": "k", "model": "gpt-4o"}
    assert "hist=1" in await _ask(Talk(_target(**options)), "one")
    assert "hist=2" in await _ask(Talk(_target(**options), "Be brief."), "one")


async def test_a_saved_conversation_goes_on(demo, tmp_path):
    talk = _talk(demo, system="Be brief.")
    await _ask(talk, "one")
    file = tmp_path / "talk.json"
    talk.save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = _talk(demo)
    other.load(file)
    assert (other.messages, other.system, other.conversation) == (talk.messages, "Be brief.", talk.conversation)
    await _ask(other, "two")
    assert len(other.messages) == 4


def test_a_conversation_is_saved_as_markdown(demo, tmp_path):
    talk = _talk(demo, system="Be brief.")
    talk.messages = [Turn("user", "one"), Turn("assistant", "**two**\n")]
    talk.save(tmp_path / "talk.md")
    assert (tmp_path / "talk.md").read_text() == "## System\n\nBe brief.\n\n## User\n\none\n\n## Assistant\n\n**two**\n"


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", '{"messages": 1}', '{"messages": [{"role": "wizard", "content": "x"}]}', "[" * 100_000],
)
def test_what_is_no_saved_conversation_is_refused_and_nothing_is_lost(demo, tmp_path, text):
    talk = _talk(demo)
    talk.messages = [Turn("user", "one")]
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(ConfigError, match=r"wrong\.json"):
        talk.load(tmp_path / "wrong.json")
    assert talk.messages == [Turn("user", "one")]


def test_files_that_cannot_be_read_or_written_are_named(demo, tmp_path):
    talk = _talk(demo)
    with pytest.raises(ConfigError, match="No such file"):
        talk.load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        talk.save(tmp_path / "none" / "talk.json")


# Asking another model


def test_another_model_of_the_same_provider_forgets_the_services_conversation(demo):
    talk = _talk(demo, "ChatGptt")
    talk.messages, talk.conversation = [Turn("user", "one")], Conversation({"id": "1"})
    assert talk.ask_another("gpt-4") is False
    assert talk.target.site == "ChatGptt/gpt-4"
    assert talk.messages == [Turn("user", "one")]
    assert talk.conversation is None
    assert talk.ask_another("ChatGptt/gpt-4o") is False
    assert talk.target.site == "ChatGptt/gpt-4o"


def test_a_model_that_there_is_not_changes_nothing(demo):
    talk = _talk(demo, "ChatGptt")
    talk.conversation = Conversation({"id": "1"})
    with pytest.raises(ModelNotFound):
        talk.ask_another("no-such-model")
    assert talk.target.site == "ChatGptt/gpt-4o"
    assert talk.conversation is not None


def test_another_provider_is_not_told_the_key_and_the_cookies_of_the_first(tmp_path):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("chatgptt.me\tFALSE\t/\tTRUE\t0\tsession\tsecret\n")
    target = _target(provider="ChatGptt", api_key="secret", cookies=cookies, proxy="http://127.0.0.1:9")
    assert target.client._access.cookies == {"session": "secret"}
    assert target.ask_another("Chatgpt4Online/gpt-4") is True
    assert target.site == "Chatgpt4Online/gpt-4"
    assert target.client._access.api_key == ""
    assert target.client._access.cookies is None
    assert target.client._access.proxy == "http://127.0.0.1:9"


def test_another_provider_is_not_asked_at_the_address_of_the_first(demo):
    with pytest.raises(ConfigError, match="--base-url is the address of ChatGptt"):
        _talk(demo, "ChatGptt").ask_another("Chatgpt4Online/gpt-4")


def test_an_endpoint_takes_any_model():
    target = _target(protocol="openai", base_url="http://127.0.0.1:1/v1", model="one")
    assert target.ask_another("org/two") is False
    assert target.site == "127.0.0.1:1/org/two"


# On a terminal


def _terminal(demo: ThreadedDemo, columns: int = 80) -> Terminal:
    return Terminal("chat", "-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt", columns=columns)


def test_on_a_terminal_an_answer_is_stopped_and_the_conversation_goes_on(demo, home):
    with _terminal(demo) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("tell me [[fault:stall=20]]\r")
        terminal.wait_for("Привет")
        assert not terminal.echoes()
        terminal.write("\x03")
        terminal.wait_for("(stopped)")
        terminal.wait_for(PROMPT)
        terminal.write("\x03")  # at the prompt: nothing but an empty line
        terminal.wait_for(PROMPT)
        terminal.write("/model\r")
        terminal.wait_for("ChatGptt/gpt-4o")
        terminal.wait_for(PROMPT)
        terminal.write("[[fault:500]]\r")
        terminal.wait_for("ProviderUnavailable")
        terminal.wait_for(PROMPT)
        terminal.write("and now?\r")
        terminal.wait_for("Готово")
        terminal.wait_for(PROMPT)
        terminal.write("\x04")
        assert terminal.end() == 0
        assert terminal.echoes()
        assert "Traceback" not in terminal.output


def test_what_was_stopped_is_kept(demo, home):
    with _terminal(demo, columns=500) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("tell me [[fault:stall=20]]\r")
        terminal.wait_for("Привет")
        terminal.write("\x03")
        terminal.wait_for("(stopped)")
        terminal.wait_for(PROMPT)
        terminal.write(f"/save {home / 'talk.json'}\r")
        terminal.wait_for("2 messages")
        terminal.write("/quit\r")
        assert terminal.end() == 0
    saved = msgspec.json.decode((home / "talk.json").read_bytes())
    assert saved["messages"][0] == {"role": "user", "content": "tell me [[fault:stall=20]]"}
    assert "Привет" in saved["messages"][1]["content"]
    assert "Готово" not in saved["messages"][1]["content"]


def test_the_history_of_questions_is_the_users_own(demo, home):
    (home / "tolmach").mkdir()
    file = home / "tolmach" / "history"
    file.touch(mode=0o644)
    with _terminal(demo) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("a question to remember\r")
        terminal.wait_for("Готово")
        terminal.wait_for(PROMPT)
        terminal.write("\x04")
        assert terminal.end() == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "a question to remember" in file.read_text()
    with _terminal(demo) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("\x1b[A")
        terminal.wait_for("a question to remember")
        terminal.write("\x03\x04")
        assert terminal.end() == 0


def test_alt_enter_and_paste_make_questions_of_several_lines(demo):
    with _terminal(demo) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("line one\x1b\rline two")
        terminal.write("\x1b[200~ and\rthree\x1b[201~\r")
        terminal.wait_for("Готово")
        terminal.wait_for(PROMPT)
        terminal.write("/history\r")
        shown = terminal.wait_for(PROMPT)
        terminal.write("\x04")
        assert terminal.end() == 0
    assert re.search(r"> line one\S*\s+\S*line two and\S*\s+\S*three", shown)


def test_slash_commands(demo):
    with _terminal(demo, columns=100) as terminal:
        terminal.wait_for(PROMPT)
        for line, answer in [
            ("/help", "/save FILE"),
            ("/model", "ChatGptt/gpt-4o"),
            ("/model gpt-4", "ChatGptt/gpt-4"),
            ("/model nosuch", "ModelNotFound"),
            ("/system be brief", "system message set"),
            ("/system", "no system message"),
            ("/history", "nothing was said yet"),
            ("/retry", "nothing was asked yet"),
            ("/save", "name a file"),
            ("/load /no/such/file", "No such file"),
            ("/new", "a new conversation"),
            ("/nosuch", "no command /nosuch"),
        ]:
            terminal.write(f"{line}\r")
            terminal.wait_for(answer)
            terminal.wait_for(PROMPT)
        terminal.write("/quit\r")
        assert terminal.end() == 0


def test_a_bug_does_not_take_the_conversation_with_it(demo, monkeypatch, capsys):
    import asyncio

    from tolmach.cli.chat import _Conversation
    from tolmach.cli.failures import Reporting

    conversation = _Conversation(_talk(demo), Reporting())
    conversation._attended = True
    lines = iter(["boom", "/quit"])

    async def read() -> str:
        return next(lines)

    async def boom(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(conversation, "_read", read)
    monkeypatch.setattr(conversation.talk, "ask", boom)
    asyncio.run(conversation.run())
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["chat", "ask"])
@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_on_no_terminal_an_answer_sends_control_sequences(demo, command, kind):
    question = "before \x1b]0;title\x07 <http://x/%1b]0;title> \x9b2J after"
    to = ("-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt")
    with Terminal(command, *to, *([question] if command == "ask" else []), kind=kind) as terminal:
        if command == "chat":
            # From a file a question may hold anything; typed it may not.
            terminal.wait_for(PROMPT if kind != "dumb" else "leaves.")
            terminal.write(f"{question}\r".replace("\x1b", "\x16\x1b").replace("\x07", "\x16\x07"))
        terminal.wait_for("Готово")
    answer = terminal.output[terminal.output.rindex("before") :]  # the terminal itself showed what was typed
    assert "]0;title" in answer
    assert "\x1b]0;" not in answer
    assert "\x9b" not in answer
