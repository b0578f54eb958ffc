"""The tables of `tolmach.toml` as frozen structs. The words at each field are what an error says is right."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

__all__ = [
    "SECRET",
    "BudgetsTable",
    "Cors",
    "EgressTable",
    "GatewayTable",
    "LedgerTable",
    "LimitsTable",
    "LogTable",
    "OtelTable",
    "PriceTable",
    "ProviderTable",
    "Route",
    "TimeoutsTable",
]

SECRET = {"secret": True}
"""Marks, as `extra`, a field whose value is shown nowhere."""
_FILE = {"file": True}
"""Marks a text that may name a file: it counts from the folder of the configuration."""

Text = Annotated[str, Meta(description="a text")]
Yes = Annotated[bool, Meta(description="true or false")]
Seconds = Annotated[float, Meta(gt=0, description="a number of seconds above 0")]
Count = Annotated[int, Meta(ge=1, description="a whole number from 1 on")]
Dollars = Annotated[float, Meta(ge=0, description="a number of US dollars, 0 or more")]
Bytes = Annotated[int, Meta(ge=1024, description="a number of bytes, at least 1024")]


class LimitsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.limits]`: what callers may send and hold."""

    body_bytes: Bytes = 32 << 20
    body_seconds: Seconds = 60.0
    """How long a caller may take to send a body."""
    depth: Annotated[int, Meta(ge=4, le=100, description="a whole number from 4 to 100")] = 100
    """How deep the JSON of a body may be nested."""
    header_bytes: Annotated[int, Meta(ge=8192, description="a number of bytes, at least 8192")] = 64 << 10
    headers: Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")] = 100
    header_seconds: Seconds = 15.0
    """How long a caller may take to send the head of a request, and how long an idle connection is kept."""
    streams: Count = 10_000
    """Answers under way at once, in each worker."""


class Cors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.cors]`: which pages in browsers may ask; none while `origins` is empty."""

    origins: tuple[
        Annotated[
            str,
            Meta(pattern=r"^(\*|https?://[^/\s]+)$", description='an origin such as "https://app.example", or "*"'),
        ],
        ...,
    ] = ()
    max_age: Annotated[int, Meta(ge=0, description="a number of seconds, 0 or more")] = 600


class EgressTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.egress]`: which addresses that a caller or a page names are fetched, besides public ones.

    What the providers' own `url` names is the operator's word, and not judged by this.
    """

    allow: tuple[
        Annotated[str, Meta(min_length=1, description='a network or a host, such as "10.0.0.0/8", "intranet.example"')],
        ...,
    ] = ()


class LogTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.log]`."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description='"debug", "info", "warning" or "error"')
    ] = "info"
    texts: Yes = False
    """Whether the texts of questions and answers are logged."""


class OtelTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.otel]`: the collector of OpenTelemetry that is told of each question."""

    endpoint: Annotated[
        str,
        Meta(
            pattern=r"^(?:|https?://[^\s?#@]+)$",
            description='the base address of a collector without a password, such as "http://127.0.0.1:4318"',
        ),
    ] = ""
    """Empty for what the `OTEL_*` variables say."""


class TimeoutsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.timeouts]`: seconds, for every target whose provider or route says nothing else."""

    connect: Seconds = 15.0
    first_token: Seconds = 120.0
    idle: Seconds = 130.0
    total: Seconds = 600.0
    shutdown: Seconds = 30.0
    """How long answers under way may go on when the gateway is told to stop."""


class BudgetsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway.budgets]`: what holds for keys with a budget."""

    answer_tokens: Count = 4096
    """The limit that is put into a question without one, so that its answer costs no more than is reserved."""
    priced_only: Yes = False
    """Whether they may only ask for models whose price is known."""


class GatewayTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`."""

    own: ClassVar[frozenset[str]] = frozenset({"hidden"})

    host: Annotated[str, Meta(min_length=1, description='a host or address to listen on, such as "127.0.0.1"')] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="a port number from 0 to 65535")] = 8080
    workers: Annotated[int, Meta(ge=1, le=512, description="a number of processes from 1 to 512")] = 1
    hosts: tuple[
        Annotated[
            str,
            Meta(
                pattern=r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$",
                description='the name of a host without a port, such as "ai.example"',
            ),
        ],
        ...,
    ] = ()
    """Names by which it may be asked besides this machine's own, where it listens on this machine alone."""
    keys: Annotated[Literal["", "required", "optional"], Meta(description='"required" or "optional"')] = ""
    """Whether callers need a key while there is none; empty for as soon as there was ever one."""
    admin_key: Annotated[str, Meta(description="a text", extra=SECRET)] = ""
    metrics_key: Annotated[str, Meta(description="a text", extra=SECRET)] = ""
    """Opens `/metrics` and nothing else."""
    state: Annotated[
        str,
        Meta(
            pattern=r"^(?:|memory|(?:redis|rediss|unix)://.+)$",
            description='"memory", or the address of a Redis or Valkey server such as "redis://127.0.0.1:6379/0"',
            extra=SECRET,
        ),
    ] = ""
    """Where limits, budgets and what is remembered stand; empty for this process alone."""
    limits: LimitsTable = LimitsTable()
    budgets: BudgetsTable = BudgetsTable()
    cors: Cors = Cors()
    egress: EgressTable = EgressTable()
    log: LogTable = LogTable()
    otel: OtelTable = OtelTable()
    timeouts: TimeoutsTable = TimeoutsTable()
    hidden: frozenset[str] = frozenset()
    """Keys with a value that came from a secret variable."""

    def __repr__(self) -> str:
        return _shown(self, hidden=self.hidden | {"admin_key", "metrics_key", "state"}, leave_out=frozenset({"hidden"}))


class LedgerTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ledger]`: where requests, attempts and callers' keys are written down."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(?:(?:sqlite|postgres|postgresql)://.*|(?!.*://).*)$",
            description='a file, an address such as "postgresql://user:password@host/name", or "off"',
            extra=SECRET,
        ),
    ] = ""
    """Empty for the file in the user's data folder."""
    retention_days: Annotated[float, Meta(ge=0, description="a number of days, 0 for ever")] = 90.0

    def __repr__(self) -> str:
        return _shown(self, hidden=frozenset({"url"} if "://" in self.url else ()))


class PriceTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[prices."PATTERN"]`: US dollars for a million tokens of a target, or of a model wherever it is."""

    input: Dollars
    output: Dollars
    cached: Annotated[float | None, Meta(ge=0, description="a number of US dollars, 0 or more")] = None
    """For tokens of the input that the service had in its cache; None for the price of `input`."""


class ProviderTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[providers.NAME]`, with the name and what it stands for filled in.

    One of `type` (a provider class), `service` (a row of the table of services) and `protocol` alone
    says what speaks; for a service `protocol` says what it speaks.
    """

    own: ClassVar[frozenset[str]] = frozenset({"name", "options", "hidden"})
    """Fields that are no keys of the file."""

    name: str = ""
    protocol: Text = ""
    service: Text = ""
    type: Text = ""
    url: Annotated[str, Meta(description='an http or https address, such as "https://shop.example"')] = ""
    api_key: Annotated[str, Meta(description="one key, a text (several stand in api_keys)", extra=SECRET)] = ""
    api_keys: Annotated[
        tuple[Annotated[str, Meta(min_length=1, description="a key, a text", extra=SECRET)], ...],
        Meta(description="a list of keys", extra=SECRET),
    ] = ()
    """More keys of the service; questions are spread over all of them."""
    default_model: Text = ""
    models: (
        tuple[Annotated[str, Meta(min_length=1, description="the name of a model")], ...]
        | dict[str, Annotated[str, Meta(min_length=1, description="the service's name of the model")]]
    ) = ()
    """Public names, or public name -> the service's own."""
    headers: dict[str, Text] = field(default_factory=dict)
    cookies: Annotated[
        str | dict[str, str],
        Meta(description="a table of names and values, or a file (cookies.txt, HAR)", extra=SECRET | _FILE),
    ] = field(default_factory=dict)
    proxy: Annotated[str, Meta(description='an address such as "socks5://127.0.0.1:1080"', extra=SECRET)] = ""
    verify: Annotated[bool | str, Meta(description="true, false, or a file of CA certificates (PEM)", extra=_FILE)] = (
        True
    )
    impersonate: Annotated[str, Meta(description='a browser profile, such as "chrome131"')] = ""
    timeout: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    strict: Yes = False
    """Whether what the service cannot honour is refused; else it is dropped and reported."""
    emulate: tuple[Annotated[Literal["tools", "json"], Meta(description='"tools" or "json"')], ...] = ()
    """What is emulated where the service has none of it."""
    prefill: Yes = False
    """Whether its models go on from a last message of the assistant, as a prefill."""
    answer_tokens: Count | None = None
    """The limit that is put into a question without one of a key with a budget; None for the gateway's."""
    options: dict[str, Any] = field(default_factory=dict)
    """The protocol's own."""
    hidden: frozenset[str] = frozenset()
    """Keys with a value that came from a secret variable."""

    @property
    def model_names(self) -> dict[str, str]:
        """Public name -> the service's own."""
        return dict(self.models) if isinstance(self.models, dict) else {model: model for model in self.models}

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of the service, each once; at least one, which may be empty."""
        return tuple(dict.fromkeys(key for key in (self.api_key, *self.api_keys) if key)) or ("",)

    def __repr__(self) -> str:
        secret = {"api_key", "api_keys", "cookies", "proxy", "headers", "options"} | (
            {"url"} if "?" in self.url else set()
        )
        return _shown(self, hidden=self.hidden | secret, leave_out=frozenset({"hidden"}))

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name)]


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[routes.NAME]`: what answers to a public model name. Seconds where it is a time; None for the gateway's."""

    targets: Annotated[
        tuple[Annotated[str, Meta(description='a target such as "groq/llama-3.3-70b-versatile"')], ...],
        Meta(min_length=1, description='a list with at least one target, such as ["groq/llama-3.3-70b-versatile"]'),
    ]
    strategy: Annotated[
        Literal["failover", "weighted", "fastest"], Meta(description='"failover", "weighted" or "fastest"')
    ] = "failover"
    weights: tuple[Annotated[float, Meta(gt=0, description="a number above 0")], ...] = ()
    """One for each target, for the strategy "weighted"."""
    attempts: Count = 3
    """How often a question is asked at most, all targets together, the first time counted; `retries` come on top."""
    retries: Annotated[int | None, Meta(ge=0, le=100, description="a whole number from 0 to 100")] = None
    """How often a target is asked again, after a fault that passes, before the next one is."""
    retry_after_wait: Annotated[float, Meta(ge=0, description="a number of seconds, 0 or more")] = 5.0
    """The longest Retry-After that one of the `retries` waits for."""
    hedge_after: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    """After so long without a token a second target is asked as well; the first token wins."""
    connect_timeout: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    first_token_timeout: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    idle_timeout: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    total_timeout: Annotated[float | None, Meta(gt=0, description="a number of seconds above 0")] = None
    recover: Annotated[Literal["off", "restart", "resume"], Meta(description='"off", "restart" or "resume"')] = "off"
    circuit_failures: Count = 3
    """So many failures in a row shut a target out for a while."""
    circuit_first_open: Seconds = 2.0
    """How long at first; twice as long after each probe that fails."""
    circuit_longest_open: Seconds = 15.0
    """How long at most; also for a target that is gone, and for a key that was refused."""


def _shown(table: Struct, *, hidden: frozenset[str], leave_out: frozenset[str] = frozenset()) -> str:
    """The set fields of a struct, with the names instead of the values of what is hidden."""
    parts = []
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if name in leave_out or value in ("", (), None) or value == {}:
            continue
        if name in hidden:
            value = sorted(value) if isinstance(value, dict) else "…"
        parts.append(f"{name}={value!r}")
    return f"{type(table).__name__}({', '.join(parts)})"
