"""`tolmach.toml`: what is read, and what is reported."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from tolmach.configuration import (
    GatewayTable,
    InvalidSettings,
    Problem,
    Settings,
    find_config,
    provider_site,
    public_models,
)
from tolmach.configuration.checking import fields_of
from tolmach.configuration.settings import environment_names
from tolmach.configuration.tables import ProviderTable, Route
from tolmach.configuration.variables import UnsetVariable, expand
from tolmach.errors import ConfigError
from tolmach.protocols import PROTOCOLS, load
from tolmach.providers.base import open_session
from tolmach.providers.registry import provider_names
from tolmach.providers.sites.apis import apis

ISSUE = """\
[gateway]                     # host, port, workers, admin_key, limits, cors
host = "127.0.0.1"
port = 8080
[providers.local]             # any name
protocol = "openai"
url = "http://127.0.0.1:8301/v1"
api_key = "${LOCAL_KEY}"
models = ["gpt-4o"]
[providers.shop]
protocol = "ai-engine"
url = "https://shop.example"
page = "/chat/"               # where the widget is
[providers.groq]              # a name from the table needs no protocol and no url
[routes.gpt-4o]               # a public model name -> targets, in order
targets = ["local/gpt-4o", "shop/default"]
strategy = "failover"         # failover | weighted | fastest
attempts = 3
connect_timeout = 5           # seconds, all of them
first_token_timeout = 10
idle_timeout = 20
total_timeout = 600
recover = "resume"            # off | restart | resume
"""
KEYS = {"LOCAL_KEY": "sk-local-1", "GROQ_API_KEY": "gsk-groq-1"}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tolmach.toml"


@pytest.fixture
def load_text(file):
    def load_text(text, environ=None, overrides=None):
        file.write_text(text, encoding="utf-8")
        return Settings.load(file, environ or {}, overrides)

    return load_text


@pytest.fixture
def problems(load_text):
    """(line, key, text) of every mistake in a configuration."""

    def problems(text, environ=None, overrides=None):
        with pytest.raises(InvalidSettings) as caught:
            load_text(text, environ, overrides)
        return [(problem.line, problem.key, problem.text) for problem in caught.value.problems]

    return problems


def provider(body):
    return f'[providers.p]\nprotocol = "openai"\nurl = "https://x.example"\n{body}\n'


# What is read


def test_the_documented_shape(load_text):
    settings = load_text(ISSUE, KEYS)
    assert settings.gateway == GatewayTable(host="127.0.0.1", port=8080)
    assert list(settings.providers) == ["local", "shop", "groq"]
    assert settings.providers["local"].api_key == "sk-local-1"
    assert settings.providers["shop"].options == {"page": "/chat/"}
    assert settings.routes["gpt-4o"] == Route(
        targets=("local/gpt-4o", "shop/default"),
        strategy="failover",
        attempts=3,
        connect_timeout=5.0,
        first_token_timeout=10.0,
        idle_timeout=20.0,
        total_timeout=600.0,
        recover="resume",
    )


def test_providers_become_sites(load_text):
    settings = load_text(ISSUE, KEYS)
    site, access = provider_site(settings.providers["local"])
    assert (site.name, site.url, site.protocol.name) == ("local", "http://127.0.0.1:8301/v1", "openai")
    assert (site.models, site.default_model, access.api_key) == (("gpt-4o",), "gpt-4o", "sk-local-1")
    shop, _ = provider_site(settings.providers["shop"])
    assert getattr(shop.protocol, "page") == "/chat/"  # noqa: B009 - an option that not every protocol has
    groq, access = provider_site(settings.providers["groq"])
    assert (groq.name, groq.url, access.api_key) == ("groq", apis()["groq"].url, "gsk-groq-1")


def test_a_session_can_be_opened_with_every_site(load_text):
    settings = load_text(ISSUE, KEYS)
    opened = [open_session(*provider_site(row)).site.name for row in settings.providers.values()]
    assert opened == ["local", "shop", "groq"]


def test_models_as_a_table_give_public_names(load_text):
    row = load_text(provider('models = { fast = "tiny-1", "gpt-4o" = "gpt-4o" }')).providers["p"]
    site, _ = provider_site(row)
    assert public_models(row) == {"fast": "tiny-1", "gpt-4o": "gpt-4o"}
    assert site.models == ("tiny-1", "gpt-4o")
    assert site.aliases == {"fast": "tiny-1"}
    assert site.default_model == "tiny-1"


@pytest.mark.parametrize("name", provider_names())
def test_a_class_is_a_provider_by_its_name(load_text, name):
    row = load_text(f'[providers.{name}]\n[providers.other]\ntype = "{name}"\nurl = "http://127.0.0.1:1/x/"').providers
    site, _ = provider_site(row[name])
    moved, _ = provider_site(row["other"])
    assert site.name == name
    assert (moved.name, moved.url) == ("other", "http://127.0.0.1:1/x")
    assert moved.protocol == site.protocol
    assert site.default_model in public_models(row[name]).values()


def test_an_option_changes_that_of_a_class_and_leaves_the_others(load_text):
    row = load_text('[providers.Aichat]\nanswer = "/text"').providers["Aichat"]
    protocol = provider_site(row)[0].protocol
    assert getattr(protocol, "answer") == "/text"  # noqa: B009
    assert getattr(protocol, "ok") == "/response"  # noqa: B009


@pytest.mark.parametrize("name", apis())
def test_a_service_of_the_table_is_one_line(load_text, name):
    row = apis()[name]
    settings = load_text(f"[providers.{name}]", {row.key: "k-123"} if row.key else {})
    site, access = provider_site(settings.providers[name])
    assert (site.url, site.protocol.name) == (row.url, row.protocol)
    assert access.api_key == ("k-123" if row.key else "")


def test_a_service_by_another_name_and_with_its_own_options(load_text):
    row = load_text('[providers.x]\nservice = "groq"\ninclude_usage = false', KEYS).providers["x"]
    site, _ = provider_site(row)
    assert site.name == "x"
    assert getattr(site.protocol, "include_usage") is False  # noqa: B009


def test_the_key_of_a_variable_does_not_go_to_another_address(load_text):
    row = load_text('[providers.groq]\nurl = "https://elsewhere.example"', KEYS).providers["groq"]
    assert row.api_key == ""
    assert provider_site(row)[1].api_key == ""


def test_the_rest_of_the_way(load_text, file):
    (file.parent / "ca.pem").write_text("x")
    (file.parent / "cookies.txt").write_text("x.example\tFALSE\t/\tFALSE\t0\tsid\tabc\n")
    row = load_text(
        provider(
            'verify = "ca.pem"\ncookies = "cookies.txt"\nproxy = "socks5://u:p@127.0.0.1:1"\n'
            'impersonate = "chrome131"\ntimeout = 5\nheaders = { x-a = "b" }\nstrict = true\nemulate = ["tools"]'
        )
    ).providers["p"]
    _, access = provider_site(row)
    assert access.verify == str(file.parent / "ca.pem")
    assert access.cookies == {"sid": "abc"}
    assert (access.proxy, access.impersonate, access.timeout) == ("socks5://u:p@127.0.0.1:1", "chrome131", 5.0)
    assert access.headers == {"x-a": "b"}
    assert (row.strict, row.emulate) == (True, ("tools",))


def test_settings_cannot_be_changed(load_text):
    settings = load_text(ISSUE, KEYS)
    for frozen in (settings, settings.gateway, settings.providers["local"], settings.routes["gpt-4o"]):
        with pytest.raises(AttributeError):
            setattr(frozen, frozen.__struct_fields__[0], None)


@pytest.mark.parametrize("text", ["", "\ufeff[gateway]\r\nport = 1\r\n", "# nothing\n"])
def test_an_empty_file_a_byte_order_mark_and_windows_lines(load_text, text):
    assert load_text(text).gateway.port == (1 if "port" in text else 8080)


# Variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("$${A}", "${A}"),
        ("$$", "$"),
        ("$$${A}", "$one"),
        ("5$ and $A", "5$ and $A"),
        ("${NONE:-a b}", "a b"),
        ("${NONE:-}", ""),
        ("${A:-d}", "one"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${REF}", "${A}"),
        ("{{message}}", "{{message}}"),
    ],
)
def test_variables(text, value):
    assert expand(text, {"A": "one", "EMPTY": "", "REF": "${A}"}).text == value


@pytest.mark.parametrize("text", ["${NONE}", "${", "${A", "${}", "${A B}", "${1A}", "${A-b}"])
def test_a_wrong_reference_is_an_error(text):
    with pytest.raises(UnsetVariable, match=r"\$\{"):
        expand(text, {"A": "one"})


def test_variables_in_any_text(load_text):
    settings = load_text(
        '[gateway]\nport = "${P}"\nhost = "${H}"\n[gateway.log]\ntexts = "${T}"\n'
        '[providers.p]\nprotocol = "json-text"\nurl = "https://${H}"\nmodels = ["${H}-m"]\n'
        'snapshots = "${T}"\ntemplate = { a = ["{{message}}", "${H}"] }\n'
        '[routes.x]\ntargets = ["p/${H}"]\nattempts = "${N:-2}"',
        {"P": "9000", "H": "h.example", "T": "true"},
    )
    assert (settings.gateway.port, settings.gateway.host, settings.gateway.log.texts) == (9000, "h.example", True)
    row = settings.providers["p"]
    assert row.options == {"snapshots": True, "template": {"a": ["{{message}}", "h.example"]}}
    assert (row.url, row.models) == ("https://h.example", ("h.example-m",))
    assert settings.routes["x"] == Route(targets=("p/h.example",), attempts=2)


def test_a_text_without_a_variable_is_no_number(problems):
    assert problems('[gateway]\nport = "9000"') == [
        (2, "gateway.port", 'a port number from 0 to 65535, not "9000"'),
    ]


def test_an_unset_variable_is_named_with_its_key_and_line_and_told_once(problems):
    [(line, key, text)] = problems('[gateway]\n\nport = "${NO_SUCH}"')
    assert (line, key) == (3, "gateway.port")
    assert "NO_SUCH is not set" in text


# What is reported

MISTAKES = [
    ("[gateway]\nprot = 1", 2, "gateway.prot", 'did you mean "port"?'),
    ("gateway = 3", 1, "gateway", "a table, not 3"),
    ("[gatway]", 1, "gatway", 'did you mean "gateway"?'),
    ("[gateway]\nport = 65536", 2, "gateway.port", "0 to 65535, not 65536"),
    ("[gateway]\nworkers = true", 2, "gateway.workers", "not true"),
    ('[gateway]\nhost = ""', 2, "gateway.host", 'not ""'),
    ("gateway.log.level = 'loud'", 1, "gateway.log.level", '"debug", "info", "warning" or "error", not "loud"'),
    ("[gateway.limits]\nbody_bytes = 3.5", 2, "gateway.limits.body_bytes", "a number of bytes, at least 1024, not 3.5"),
    ("[gateway.limits]\ndepth = [1]", 2, "gateway.limits.depth", "not a list"),
    ("[gateway.timeouts]\nidle = inf", 2, "gateway.timeouts.idle", "above 0, not inf"),
    ("[gateway.timeouts]\nidle = nan", 2, "gateway.timeouts.idle", "above 0, not nan"),
    ('[gateway.cors]\norigins = ["*",\n "x"]', 3, "gateway.cors.origins[1]", "an origin such as"),
    ('[gateway.egress]\nallow = ["::1",\n "10.0.0.1/8"]', 3, "gateway.egress.allow[1]", "has host bits set"),
    ("providers = []", 1, "providers", "write [providers.NAME]"),
    ("[providers]\np = 1", 2, "providers.p", "write [providers.p]"),
    ("[providers.grok]", 1, "providers.grok", "did you mean groq?"),
    ("[providers.my-own]", 1, "providers.my-own", "needs url and protocol, one of"),
    ('[providers."a/b"]\ntype = "Aichat"', 1, 'providers."a/b"', "a text without /"),
    ('[providers.p]\nprotocol = "opnai"\nurl = "http://x"', 2, "providers.p.protocol", 'did you mean "openai"?'),
    ('[providers.p]\nprotocol = "openai"', 1, "providers.p.url", "is missing: the address at which the protocol is"),
    ('[providers.p]\nservice = "gruq"', 2, "providers.p.service", 'did you mean "groq"?'),
    ('[providers.p]\ntype = "AiChat"', 2, "providers.p.type", 'did you mean "Aichat"?'),
    ('[providers.p]\ntype = "Aichat"\nservice = "vllm"', 3, "providers.p.service", "type stands there already"),
    ("[providers.groq]", 1, "providers.groq.api_key", "set the environment variable GROQ_API_KEY to the key of Groq"),
    (provider('api_key = ["a", "b"]'), 4, "providers.p.api_key", "one key, a text (several stand in api_keys)"),
    (provider('api_key = "a\\n"'), 4, "providers.p.api_key", "a line break"),
    ('[providers.vllm]\nurl = "shop.example"', 2, "providers.vllm.url", "an http or https address"),
    ('[providers.vllm]\nurl = "http://u:p@x.example"', 2, "providers.vllm.url", "no name and password in the address"),
    (provider("models = 3"), 4, "providers.p.models", "not 3"),
    (provider('models = ["a",\n""]'), 5, "providers.p.models[1]", "the name of a model"),
    (provider("models = { a = 1 }"), 4, "providers.p.models.a", "the service's name of the model, not 1"),
    (provider("headers = { 'a b' = 'c' }"), 4, "providers.p.headers", "no name of a header"),
    (provider("headers = { a = 1 }"), 4, "providers.p.headers.a", "a text, not 1"),
    (provider("proxy = 'ftp://x:1'"), 4, "providers.p.proxy", "a proxy is http"),
    (provider("impersonate = 'chrome1'"), 4, "providers.p.impersonate", "no browser profile"),
    (provider("verify = 'none.pem'"), 4, "providers.p.verify", "there is no file"),
    (provider("cookies = 'none.txt'"), 4, "providers.p.cookies", "there is no file"),
    (provider("cookies = 4"), 4, "providers.p.cookies", "a table of names and values"),
    (provider("timeout = 0"), 4, "providers.p.timeout", "a number of seconds above 0, not 0"),
    (provider("strict = 'yes'"), 4, "providers.p.strict", 'true or false, not "yes"'),
    (provider('emulate = ["images"]'), 4, "providers.p.emulate[0]", '"tools" or "json", not "images"'),
    (provider("includ_usage = true"), 4, "providers.p.includ_usage", 'did you mean "include_usage"?'),
    (provider("include_usage = 'yes'"), 4, "providers.p.include_usage", 'true or false, not "yes"'),
    (provider("name = 'x'"), 4, "providers.p.name", "unknown key"),
    (provider("hidden = []"), 4, "providers.p.hidden", "unknown key"),
    (
        "[providers.p]\nprotocol = 'json-text'\nurl = 'http://x'\n[providers.p.template]\na = '{{nonsense}}'",
        4,
        "providers.p.template",
        "nothing is called 'nonsense'",
    ),
    ("[providers.Aichat]\nerrors = ['/a', 1]", 2, "providers.Aichat.errors[1]", "a text, not 1"),
    ("[providers.Aichat]\nformat = 'xml'", 2, "providers.Aichat.format", '"json" or "text" or "ndjson" or "sse"'),
    ("[providers.ChatGpt]\nprofile.cores = 'x'", 2, "providers.ChatGpt.profile.cores", 'a whole number, not "x"'),
    ("[routes.m]\nattempts = 2", 1, "routes.m.targets", "is missing"),
    ("[routes.m]\ntargets = []", 2, "routes.m.targets", "at least one target"),
    ("[routes.m]\ntargets = 'p/m'", 2, "routes.m.targets", "a list with at least one target"),
    ("[providers.Aichat]\n[routes.m]\ntargets = [\n'Aichit/m']", 4, "routes.m.targets[0]", 'did you mean "Aichat"?'),
    ("[routes.m]\ntargets = ['groq/m']", 2, "routes.m.targets[0]", "add [providers.groq]"),
    ("[providers.Aichat]\n[routes.m]\ntargets=['Aichat']\nattempts=0", 4, "routes.m.attempts", "from 1 on, not 0"),
    (
        "[providers.Aichat]\n[routes.m]\ntargets=['Aichat']\nstrategy='fast'",
        4,
        "routes.m.strategy",
        '"failover", "weighted" or "fastest", not "fast"',
    ),
    (
        "[providers.Aichat]\n[routes.m]\ntargets=['Aichat']\nrecover='on'",
        4,
        "routes.m.recover",
        '"off", "restart" or "resume", not "on"',
    ),
    (
        "[providers.Aichat]\n[routes.m]\ntargets=['Aichat']\nidle_timeout=-1",
        4,
        "routes.m.idle_timeout",
        "a number of seconds above 0, not -1",
    ),
    ("[gateway\nport = 1", 1, "", "no TOML"),
    ("[gateway]\nport = 1\nport = 2", 3, "", "no TOML"),
    ("[gateway]\nhost = 'x", 2, "", "no TOML"),
    ("[gateway]\nhost = ", 2, "", "no TOML"),
]


@pytest.mark.parametrize(("text", "line", "key", "words"), MISTAKES, ids=lambda value: str(value)[-40:])
def test_a_mistake_is_reported_once_by_line_and_key(problems, text, line, key, words):
    [(found_line, found_key, found_text)] = problems(text)
    assert (found_line, found_key) == (line, key)
    assert words in found_text


def test_every_mistake_is_reported_in_the_order_of_the_file(problems):
    texts = [text for text, line, key, _ in MISTAKES if text.startswith("[providers.p]") and key]
    joined = "\n".join(text.replace("providers.p", f"providers.p{at}") for at, text in enumerate(texts))
    found = problems(joined)
    expected = [
        key.replace("providers.p", f"providers.p{at}")
        for at, (_, _, key, _) in enumerate(
            mistake for mistake in MISTAKES if mistake[0].startswith("[providers.p]") and mistake[2]
        )
    ]
    assert [key for _, key, _ in found] == expected
    lines = [line for line, _, _ in found]
    assert lines == sorted(lines)
    assert len(texts) > 15


def test_several_mistakes_of_one_table(problems):
    keys = {key for _, key, _ in problems(provider("bad = 1\ntimeout = 0\ninclude_usage = 3\nurl2 = 'x'"))}
    assert keys == {f"providers.p.{key}" for key in ("bad", "timeout", "include_usage", "url2")}


def test_the_error_is_a_config_error_with_a_line_for_each(load_text, file):
    with pytest.raises(ConfigError) as caught:
        load_text("[gateway]\nport = 'x'\nworkers = 0")
    assert str(caught.value).splitlines() == [
        f'{file}:2: gateway.port: a port number from 0 to 65535, not "x"',
        f"{file}:3: gateway.workers: a number of processes from 1 to 512, not 0",
    ]
    assert isinstance(caught.value, ValueError)


def test_files_that_cannot_be_read(tmp_path, file):
    file.write_bytes(b"[gateway]\n# caf\xe9\n")
    with pytest.raises(InvalidSettings, match=r"toml:2: not UTF-8"):
        Settings.load(file, {})
    with pytest.raises(InvalidSettings, match="directory"):
        Settings.load(tmp_path, {})
    with pytest.raises(InvalidSettings, match="there is no such file"):
        Settings.load(tmp_path / "none.toml", {})
    file.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(InvalidSettings, match="nested too deep"):
        Settings.load(file, {})
    file.write_bytes(b"#" * (5 << 20))
    with pytest.raises(InvalidSettings, match="longer than"):
        Settings.load(file, {})


# What stands above the file


def test_arguments_over_the_environment_over_the_file_over_defaults(load_text):
    text = "[gateway]\nport = 1\nworkers = 1\nhost = 'file'"
    environ = {"TOLMACH_GATEWAY__PORT": "2", "TOLMACH_GATEWAY__WORKERS": "2"}
    settings = load_text(text, environ, {"gateway.port": 3, "gateway.host": None})
    assert settings.gateway == GatewayTable(port=3, workers=2, host="file")


def test_every_key_of_the_gateway_has_a_variable(load_text):
    environ = {
        "TOLMACH_GATEWAY__ADMIN_KEY": "x",
        "TOLMACH_GATEWAY__LIMITS__BODY_BYTES": "4096",
        "TOLMACH_GATEWAY__CORS__ORIGINS": "https://a.example, https://b.example",
        "TOLMACH_GATEWAY__LOG__TEXTS": "True",
        "TOLMACH_GATEWAY__TIMEOUTS__IDLE": "1.5",
        "TOLMACH_GATEWAY_PORT": "tcp://10.0.0.1:80",
    }
    gateway = load_text("", environ).gateway
    assert gateway.limits.body_bytes == 4096
    assert gateway.cors.origins == ("https://a.example", "https://b.example")
    assert gateway.log.texts is True
    assert gateway.timeouts.idle == 1.5
    assert gateway.port == 8080
    assert environ.keys() - environment_names().keys() == {"TOLMACH_GATEWAY_PORT"}


def test_mistakes_above_the_file_name_what_made_them(file, load_text):
    with pytest.raises(InvalidSettings) as caught:
        load_text(
            "[gateway]\nport = 'x'",
            {"TOLMACH_GATEWAY__PORT": "y", "TOLMACH_GATEWAY__WORKER": "2"},
            {"gateway.host": ""},
        )
    assert [str(problem) for problem in caught.value.problems] == [
        'TOLMACH_GATEWAY__WORKER: no such setting; did you mean "TOLMACH_GATEWAY__WORKERS"?',
        'TOLMACH_GATEWAY__PORT: gateway.port: a port number from 0 to 65535, not "y"',
        'argument: gateway.host: a host or address to listen on, such as "127.0.0.1", not ""',
    ]


def test_what_is_overridden_need_not_be_set(load_text):
    assert load_text("[gateway]\nport = '${NONE}'", {"TOLMACH_GATEWAY__PORT": "7"}).gateway.port == 7
    assert load_text("gateway = 3", {}, {"gateway.port": 7}).gateway.port == 7


def test_where_the_configuration_is_looked_for(tmp_path, monkeypatch):
    for name in ("given", "named", "work", "xdg/tolmach", "home/.config/tolmach"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "tolmach.toml").write_text("")
    monkeypatch.chdir(tmp_path / "work")
    environ = {
        "TOLMACH_CONFIG": str(tmp_path / "named/tolmach.toml"),
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "HOME": str(tmp_path / "home"),
    }

    def found(path=None):
        file = find_config(path, environ)
        return file and str(file.resolve().relative_to(tmp_path).parent)

    assert found(tmp_path / "given/tolmach.toml") == "given"
    assert found() == "named"
    del environ["TOLMACH_CONFIG"]
    assert found() == "work"
    (tmp_path / "work/tolmach.toml").unlink()
    assert found() == "xdg/tolmach"
    del environ["XDG_CONFIG_HOME"]
    assert found() == "home/.config/tolmach"
    del environ["HOME"]
    assert found() is None
    assert Settings.load(None, environ) == Settings()
    with pytest.raises(InvalidSettings, match="named by TOLMACH_CONFIG"):
        find_config(None, {"TOLMACH_CONFIG": "/no/such/file"})


# Tests that nothing is forgotten


def test_options_and_common_keys_do_not_share_a_name():
    common = set(fields_of(ProviderTable)) | set(ProviderTable.own)
    for name in PROTOCOLS:
        fields = {field.name for field in msgspec.structs.fields(load(name))}  # type: ignore[arg-type]
        assert fields & common == set(), name


def test_a_class_and_a_service_do_not_share_a_name():
    assert set(provider_names()) & set(apis()) == set()


def test_the_examples_of_the_document_are_without_mistake(load_text):
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```toml\n")[1:]]
    assert blocks
    for block in blocks:
        tomllib.loads(block)
        assert load_text(block, {"LOCAL_KEY": "a", "GROQ_API_KEY": "b", "SHOP_PROXY": "socks5://127.0.0.1:1"})


def test_a_problem_without_a_line():
    assert str(Problem("f", None, "", "x")) == "f: x"
