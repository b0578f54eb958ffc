"""`tolmach discover`: addresses, files, traffic and commands in; assistants, answers and rows out."""

import json
from pathlib import Path

import pytest

from tolmach.configuration import Settings
from tolmach.configuration.adding import add_provider, provider_toml
from tolmach.errors import ConfigError
from tolmach.testing.recordings import load

CAPTURES = Path(__file__).parent.parent / "captures"


@pytest.fixture
def page_file(tmp_path):
    """A recorded page as a file, as a browser saves it."""

    def write(name: str) -> str:
        exchange = next(e for e in load(CAPTURES / f"{name}.json").exchanges if e.head.content_type == "text/html")
        file = tmp_path / "page.html"
        file.write_bytes(exchange.body())
        return str(file)

    return write


@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        ("aiengine-2.4.3/page-chat", ["ai-engine"]),
        ("aiengine-3.6.2/page-chat-two", ["ai-engine", "ai-engine"]),
        ("aipower-1.9.18/page-chat", ["ai-power"]),
        ("aipower-1.9.18/page-plain", []),
        ("aipkit-2.4.71/page-chat-popup", ["aipkit"]),
        ("aipkit-2.3/page-plain", []),
    ],
)
def test_a_saved_page_as_json(run, page_file, name, protocols):
    result = run("discover", page_file(name), "--json")
    assert result.exit_code == 0, result.output
    assert [found["protocol"] for found in json.loads(result.stdout)["found"]] == protocols


def test_json_has_all_that_is_known(run, page_file):
    (found,) = json.loads(run("discover", page_file("aiengine-2.4.3/page-chat"), "--json").stdout)["found"]
    assert found["version"] == "up to 2.4.3"
    assert found["limit"] == {"most": 512, "unit": "bytes"}
    assert found["row"] == {
        "protocol": "ai-engine",
        "url": "http://wordpress.test",
        "page": "/chat/",
        "bot_id": "chatbot-main1",
    }
    assert found["evidence"][0]["where"] == "div.mwai-chatbot-container[data-system]"


def test_for_people_each_finding_is_a_line(run, page_file):
    result = run("discover", page_file("aiengine-3.6.2/gdpr-on"))
    assert "1. ai-engine 3.5.2 or later: AI (chatbot-main1)\n" in result.stdout
    assert "   limit     512 characters a message\n" in result.stdout
    assert "   missing   consent: the site asks visitors for consent" in result.stdout


def test_nothing_found_is_an_answer_too(run, page_file):
    result = run("discover", page_file("aipower-1.9.18/page-plain"))
    assert result.exit_code == 0
    assert "no assistant was found\nhint: AI Power is active on this site" in result.stdout


@pytest.mark.parametrize("more", [("--try", "hi"), ("--save", "x")])
def test_nothing_found_cannot_be_asked_or_saved(run, page_file, more):
    result = run("discover", page_file("aipower-1.9.18/page-plain"), *more)
    assert result.exit_code == 4
    assert "AssistantGone: no assistant was found" in result.stderr


def test_an_address_is_looked_at_and_asked(run, demo):
    result = run("discover", f"{demo.url}/Chatgpt4Online/", "--try", "are you there?")
    assert result.exit_code == 0, result.output
    assert "   bot       default\n" in result.stdout
    assert "> are you there?" in result.stdout


def test_an_answer_stands_in_the_json(run, demo):
    result = run("discover", f"{demo.url}/aipkit/", "--try", "are you there?", "--json")
    tried = json.loads(result.stdout)["tried"]
    assert "are you there?" in tried["answer"]
    assert tried["error"] is None


def test_a_refusal_is_an_error_and_shows_that_guests_may_not_ask(run, demo):
    result = run("discover", f"{demo.url}/aipkit-2.4-no-guests/", "--try", "hi", "--json")
    assert result.exit_code == 4
    value = json.loads(result.stdout)
    assert value["tried"]["error"]["error"] == "AuthError"
    assert value["found"][0]["guests"] is False


def test_consent_is_never_given_unasked(run, demo):
    url = f"{demo.url}/ai-engine-3-consent/"
    before = demo.log.answers["/ai-engine-3-consent"]
    refused = run("discover", url, "--try", "hi")
    assert refused.exit_code == 2
    assert "agree to it with --accept-consent" in refused.stderr
    assert demo.log.answers["/ai-engine-3-consent"] == before
    assert "> hi" in run("discover", url, "--try", "hi", "--accept-consent").stdout


def test_a_question_over_the_limit_is_not_sent(run, demo):
    before = demo.log.answers["/ai-engine-2-chat"]
    result = run("discover", f"{demo.url}/ai-engine-2-chat/", "--try", "я" * 257)
    assert result.exit_code == 4
    assert "the question has 514 bytes, and the site takes 512 at most" in result.stderr
    assert demo.log.answers["/ai-engine-2-chat"] == before


def test_bot_chooses(run, demo):
    url = f"{demo.url}/ai-engine-3-two/"
    value = json.loads(run("discover", url, "--bot", "chatbot-up1", "--json").stdout)
    assert [found["bot"] for found in value["found"]] == ["chatbot-up1"]
    wrong = run("discover", url, "--bot", "other")
    assert wrong.exit_code == 2
    assert "there are: chatbot-main1, chatbot-up1" in wrong.stderr


# Traffic


def har(*entries: tuple[str, str, str, str, str]) -> str:
    """A HAR file of entries: method, address, what was posted, type and text of the answer."""
    return json.dumps(
        {
            "log": {
                "version": "1.2",
                "entries": [
                    {
                        "startedDateTime": f"2026-01-01T00:00:0{number}.000Z",
                        "request": {
                            "method": method,
                            "url": url,
                            "headers": [{"name": "Content-Type", "value": "application/json"}],
                            "postData": {"mimeType": "application/json", "text": posted},
                        },
                        "response": {
                            "status": 200,
                            "headers": [{"name": "Content-Type", "value": kind}],
                            "content": {"mimeType": kind, "text": text},
                        },
                    }
                    for number, (method, url, posted, kind, text) in enumerate(entries)
                ],
            }
        }
    )


def test_a_har_file_is_looked_through(run, tmp_path):
    recording = load(CAPTURES / "aiengine-3.6.2/page-chat.json").exchanges[0]
    file = tmp_path / "visit.har"
    file.write_text(
        har(
            ("GET", "http://wordpress.test/chat/", "", "text/html", recording.body().decode()),
            (
                "POST",
                "https://api.example/v1/chat/completions",
                '{"model":"m","messages":[]}',
                "application/json",
                '{"choices":[{"message":{"role":"assistant","content":"ho"},"finish_reason":"stop"}]}',
            ),
            ("POST", "https://chat.example/ask", '{"q":"hi"}', "application/json", '{"a":"ho"}'),
        )
    )
    value = json.loads(run("discover", str(file), "--json").stdout)
    assert sorted(found["protocol"] for found in value["found"]) == ["ai-engine", "openai"]
    assert value["unknown"] == ["POST https://chat.example/ask"]


def test_a_curl_command_of_a_page_is_fetched_with_its_own_agent(run, demo):
    command = f"curl '{demo.url}/ChatGptt/' -H 'User-Agent: Mozilla/5.0' --compressed"
    value = json.loads(run("discover", command, "--json").stdout)
    assert [found["protocol"] for found in value["found"]] == ["ai-power"]


def test_a_curl_command_of_a_question_is_only_read(run, demo):
    before = demo.log.answers["/v1"]
    command = f"""curl {demo.url}/v1/chat/completions -H 'content-type: application/json' -d '{{"model":"m"}}'"""
    value = json.loads(run("discover", "-", "--json", input=command).stdout)
    assert [found["row"]["url"] for found in value["found"]] == [f"{demo.url}/v1"]
    assert demo.log.answers["/v1"] == before


def test_what_is_nothing_of_all_that_is_told(run):
    result = run("discover", "shop.example")
    assert result.exit_code == 2
    assert "neither an address (http:// or https://) nor a file" in result.stderr


# Saving


def test_a_row_is_added_and_the_rest_stays(run, demo, tmp_path):
    file = tmp_path / "tolmach.toml"
    file.write_text("# mine\n[gateway]\nport = 9999")
    result = run("discover", f"{demo.url}/aipkit-2.4-two/", "--save", "shop", "-c", str(file))
    assert result.exit_code == 0, result.output
    assert file.read_text().startswith("# mine\n[gateway]\nport = 9999\n\n[providers.shop]\n")
    row = Settings.load(file).providers["shop"]
    assert (row.protocol, row.url) == ("aipkit", f"{demo.url}/aipkit-2.4-two")
    assert row.options == {"page": "/", "bot_id": 5}
    again = run("discover", f"{demo.url}/aipkit-2.4-two/", "--save", "shop", "-c", str(file))
    assert again.exit_code == 2
    assert "has a provider 'shop' already" in again.stderr


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path):
    file = tmp_path / "new.toml"
    add_provider(file, "my shop", {"protocol": "ai-engine", "url": "https://site.example"})
    assert file.read_text() == '[providers."my shop"]\nprotocol = "ai-engine"\nurl = "https://site.example"\n'
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_page_says_is_no_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_KEY", "a-secret")
    file = tmp_path / "tolmach.toml"
    add_provider(file, "shop", {"protocol": "aipkit", "url": "https://site.example", "page": "/${SHOP_KEY}/"})
    assert Settings.load(file).providers["shop"].options["page"] == "/${SHOP_KEY}/"
    assert "a-secret" not in file.read_text()
    assert provider_toml("a", {"models": ["$x"]}) == '[providers.a]\nmodels = ["$$x"]\n'


def test_a_row_that_would_not_be_read_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "tolmach.toml"
    file.write_text("[gateway]\n")
    with pytest.raises(ConfigError, match="protocol"):
        add_provider(file, "shop", {"protocol": "none", "url": "https://site.example"})
    assert file.read_text() == "[gateway]\n"
    assert [one.name for one in tmp_path.iterdir()] == ["tolmach.toml"]
