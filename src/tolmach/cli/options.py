"""Options that several commands share, and the client they describe."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec
from click.core import ParameterSource

from tolmach.cli.config import config_option, load_settings
from tolmach.cli.failures import debug_option
from tolmach.cli.whom import Whom, another, choose
from tolmach.client.clients import AsyncClient
from tolmach.configuration import Settings
from tolmach.cookies import load_cookies
from tolmach.errors import ConfigError
from tolmach.pages.site import page_site
from tolmach.protocols import PROTOCOLS, load

if TYPE_CHECKING:
    from tolmach.pages.session import Assistant

__all__ = ["Target", "pairs", "target_options"]

F = TypeVar("F", bound=Callable[..., Any])


def _beaten_by(*others: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback: a value from the environment gives way to any of these options on the command line."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        name = parameter.name or ""
        given = [ctx.get_parameter_source(other) for other in others]
        if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT and ParameterSource.COMMANDLINE in given:
            return parameter.get_default(ctx)
        return value

    return callback


def _only_with(other: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback: a value from the environment counts only beside this option on the command line."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        alone = ctx.get_parameter_source(other) is not ParameterSource.COMMANDLINE
        if alone and ctx.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
            return None
        return value

    return callback


def _address(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise click.BadParameter(
            f"{value!r} is no http or https address, such as https://shop.example", ctx=ctx, param=parameter
        )
    return value


_file = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option(
        "-m",
        "--model",
        default="",
        envvar="TOLMACH_MODEL",
        show_envvar=True,
        callback=_beaten_by("provider", "url"),
        help="Model of the configuration, or PROVIDER/MODEL.",
    ),
    click.option(
        "-p",
        "--provider",
        default=None,
        envvar="TOLMACH_PROVIDER",
        show_envvar=True,
        callback=_beaten_by("model", "protocol", "url"),
        help="Provider, service or site; without -m its default model.",
    ),
    click.option(
        "--url",
        default=None,
        metavar="PAGE",
        callback=_address,
        help="Page with an assistant: it is found there, and asked.",
    ),
    click.option("--bot", default="", metavar="ID", help="With --url: the assistant with this id or name."),
    click.option(
        "--accept-consent", is_flag=True, help="With --url: agree to what the site asks its visitors to agree to."
    ),
    click.option("--fresh", is_flag=True, help="With --url: forget what was found on the page, and look at it again."),
    click.option(
        "--base-url",
        default=None,
        metavar="URL",
        callback=_address,
        help="Another address of the provider, or an endpoint (with --protocol).",
    ),
    click.option(
        "--protocol",
        default=None,
        metavar="NAME",
        type=click.Choice(list(PROTOCOLS)),
        help=f"What the endpoint speaks: {', '.join(PROTOCOLS)}.",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Option of the protocol, such as bot_id=default; may be repeated.",
    ),
    click.option(
        "--api-key",
        default=None,
        envvar="TOLMACH_API_KEY",
        show_envvar=True,
        metavar="KEY",
        # A key in the environment is for the user's own endpoint; no named site may be sent it unasked.
        callback=_only_with("protocol"),
        help="Key of the service; from the environment only with --protocol.",
    ),
    click.option("--cookies", type=_file, default=None, help="cookies.txt, JSON export or HAR file of a browser."),
    click.option(
        "--proxy",
        default=None,
        envvar="TOLMACH_PROXY",
        show_envvar=True,
        metavar="URL",
        help="http://, https://, socks4:// or socks5:// address, with user:password@ where needed.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=None,
        metavar="SECONDS",
        help="Longest time for a whole answer.",
    ),
    click.option("--ca", "ca", type=_file, default=None, help="CA certificates to trust instead of the system's, PEM."),
    click.option("--insecure", is_flag=True, help="Do not check certificates."),
    click.option("--impersonate", default=None, metavar="PROFILE", help="Browser profile, such as chrome131."),
    click.option("--transport", type=click.Choice(["auto", "wreq", "aiohttp"]), default=None, help="HTTP library."),
    click.option("--lenient", is_flag=True, help="Drop what the provider cannot honour, with a notice."),
)


def target_options(command: F) -> F:
    """Adds the options that say whom to ask and how to get there."""
    command = config_option(debug_option(command))
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _split(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"{setting!r}: write KEY=VALUE")
    return key, value


def _value(text: str) -> Any:
    """A number, true, false, a list or an object where the text is JSON; else the text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


def pairs(settings: tuple[str, ...], *, reserved: dict[str, str] | None = None) -> dict[str, Any]:
    """`KEY=VALUE` texts as a dict; values that are JSON (numbers, true, lists) are parsed.

    `reserved` says for a key that may not be among them what to use. Raises `ConfigError`.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        key, value = _split(setting)
        if reserved and key in reserved:
            raise ConfigError(f"{key} is not set like this; use {reserved[key]}")
        found[key] = _value(value)
    return found


def _protocol_settings(protocol: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """The protocol's options; one that is a text there is taken as it stands (`bot_id=12`)."""
    kind: Any = load(protocol)  # a struct, which the type of all protocols does not say
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    found: dict[str, Any] = {}
    for setting in settings:
        key, value = _split(setting)
        if key not in fields:
            raise ConfigError(f"protocol {protocol} has no option {key!r}; it has: {', '.join(fields) or 'none'}")
        found[key] = value if fields[key] in (str, str | None) else _value(value)
    return found


class Target:
    """Whom to ask and how to get there: what the shared options say.

    `site` says it for people. Raises `ConfigError` for what does not fit together and
    `ModelNotFound` for a provider or model that there is not.
    """

    def __init__(
        self,
        *,
        model: str,
        provider: str | None,
        base_url: str | None,
        protocol: str | None,
        settings: tuple[str, ...],
        api_key: str | None,
        proxy: str | None,
        cookies: Path | None,
        timeout: float | None,
        ca: Path | None,
        insecure: bool,
        impersonate: str | None,
        transport: str | None,
        lenient: bool,
        url: str | None = None,
        bot: str = "",
        accept_consent: bool = False,
        fresh: bool = False,
        file: Path | None = None,
    ) -> None:
        self._way: dict[str, Any] = {
            "proxy": proxy,
            "timeout": timeout,
            "verify": False if insecure else str(ca) if ca else True,
            "impersonate": impersonate,
            "transport": transport,
            "strict": not lenient,
        }
        self._moved = base_url is not None
        self.model = model
        self._whom: Whom | None = None
        self._settings = Settings()
        self._is_page, self._agreed = url is not None, accept_consent
        arguments: dict[str, Any] = {}
        if file is not None and not (url is protocol is None):
            raise ConfigError("--config is for -m and -p; --url and --protocol say themselves who is asked")
        if url is not None:
            if provider is not None or base_url is not None or protocol is not None or settings:
                raise ConfigError("--url goes without --provider, --base-url, --protocol and --set")
            self._endpoint = urlsplit(url).netloc.rpartition("@")[2]
            arguments = _page_options(url, bot, accept_consent, fresh)
        elif bot or accept_consent or fresh:
            raise ConfigError("--bot, --accept-consent and --fresh go with --url")
        elif protocol is not None:
            if provider is not None or base_url is None:
                raise ConfigError("--protocol goes with --base-url and without --provider")
            self._endpoint = urlsplit(base_url).netloc.rpartition("@")[2]
            arguments = {"protocol": protocol, **_protocol_settings(protocol, settings)}
        elif settings:
            raise ConfigError("--set is for options of the endpoint's protocol: it goes with --protocol and --base-url")
        else:
            if base_url is not None and provider is None:
                provider, model = _named_in(model)
            self._settings = load_settings(file)
            self._whom = choose(model, provider, self._settings)
            self.model, arguments = self._whom.model, self._whom.arguments
        self.client = AsyncClient(
            base_url=base_url,
            api_key=api_key,
            cookies=self._cookies(cookies, base_url or url),
            **arguments,
            **self._way,
        )

    @property
    def site(self) -> str:
        """Whom it asks: `ChatGptt/gpt-4o`, an endpoint's host and the model, or a model of the configuration."""
        if self._whom is not None:
            return self._whom.text
        return "/".join(filter(None, (self._endpoint, self.model)))

    async def introduced(self) -> "Assistant | None":
        """The assistant of the page, found now where it is not known; None where no page is asked.

        Raises what stands before the assistant, `ConsentNeeded` too.
        """
        if not self._is_page:
            return None
        from tolmach.pages.session import check_consent

        assistant = await self.client.assistant()
        check_consent(assistant.found, accepted=self._agreed)
        return assistant

    def ask_another(self, name: str) -> bool:
        """Ask another model from now on, or `PROVIDER/MODEL`. Gives whether that is another provider.

        Another provider is not told the key and the cookies that were meant for the first.
        Raises `ModelNotFound`, or `ConfigError` when the first one's address was given.
        """
        before = self._whom
        if before is None:
            self.model = name
            return False
        now = another(before, name, self._settings)
        if now.named != before.named and self._moved:
            own, other = (whom.named.name if whom.named else whom.model for whom in (before, now))
            raise ConfigError(f"--base-url is the address of {own}; leave and start again to ask {other}")
        self._whom, self.model = now, now.model
        if now.named == before.named:
            return False
        self.client = AsyncClient(**now.arguments, **self._way)
        return True

    def _cookies(self, file: Path | None, base_url: str | None) -> dict[str, str] | None:
        if file is None:
            return None
        provider = self._whom.provider if self._whom else None
        address = base_url or (provider.url if provider else "")
        domain = (provider.cookie_domain if provider else "") or urlsplit(address).hostname
        if not domain:
            raise ConfigError("--cookies: name the provider with -p, so that its domain is known")
        found = load_cookies(file, domain)
        if not found:
            raise ConfigError(f"{file}: no cookie in it is for {domain}")
        return found


def _page_options(url: str, bot: str, accept_consent: bool, fresh: bool) -> dict[str, Any]:
    """The client's arguments for a page; with `fresh` what was found there is forgotten."""
    if fresh:
        # Only what asks pages takes the time to load what reads them.
        from tolmach.pages.cache import forget

        forget(page_site(url, what="--url").url)
    return {"page": url, "bot": bot, "accept_consent": accept_consent}


def _named_in(model: str) -> tuple[str, str]:
    """The provider that a model's name begins with, and the rest. Raises `ConfigError` where it names none."""
    name, slash, rest = model.partition("/")
    if not slash:
        raise ConfigError("--base-url needs --protocol (what the endpoint speaks) or -p (whose address it is)")
    return name, rest
