"""Options that several commands share, and the client they describe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from anychat.client import AsyncClient
from anychat.cookies import load_cookies
from anychat.errors import ConfigError
from anychat.protocols import PROTOCOLS
from anychat.registry import get_provider

__all__ = ["Target", "pairs", "target_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-m", "--model", default="", envvar="ANYCHAT_MODEL", help="Model, or PROVIDER/MODEL."),
    click.option("-p", "--provider", default=None, envvar="ANYCHAT_PROVIDER", help="Provider; its own default model."),
    click.option("--base-url", default=None, help="Address of an endpoint (with --protocol), or of the provider."),
    click.option("--protocol", default=None, type=click.Choice(list(PROTOCOLS)), help="What the endpoint speaks."),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the protocol, such as bot_id=x."
    ),
    click.option("--api-key", default=None, envvar="ANYCHAT_API_KEY", help="Key of the endpoint."),
    click.option("--proxy", default=None, help="http://, https://, socks4://, socks5:// address."),
    click.option(
        "--cookies",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=None,
        help="cookies.txt, JSON export or HAR file.",
    ),
    click.option("--timeout", type=float, default=None, help="Seconds for a whole answer."),
    click.option(
        "--ca", "ca", type=click.Path(exists=True, dir_okay=False), default=None, help="CA certificates, PEM."
    ),
    click.option("--insecure", is_flag=True, help="Do not check certificates."),
    click.option("--impersonate", default=None, help="Browser profile, such as chrome131."),
    click.option("--transport", type=click.Choice(["wreq", "aiohttp"]), default=None, help="HTTP library."),
    click.option("--lenient", is_flag=True, help="Drop what the provider cannot honour, with a notice."),
)


def target_options(command: F) -> F:
    """Adds the options that say whom to ask and how to get there."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def pairs(settings: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` texts as a dict; values that are JSON (numbers, true, lists) are parsed."""
    import msgspec

    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"{setting!r}: write KEY=VALUE")
        try:
            found[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[key] = value
    return found


class Target:
    """Whom to ask: what the shared options say, as a client."""

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
        ca: str | None,
        insecure: bool,
        impersonate: str | None,
        transport: str | None,
        lenient: bool,
    ) -> None:
        self.model = model
        self.provider = provider
        if not model and provider is None and protocol is None:
            raise ConfigError("whom to ask? Give -m MODEL or -p PROVIDER (see `anychat models`), or --base-url")
        if provider is not None:
            get_provider(provider)
        if protocol is not None and provider is not None:
            raise ConfigError("--protocol goes with --base-url and without --provider")
        self.client = AsyncClient(
            provider=provider,
            base_url=base_url,
            protocol=protocol,
            api_key=api_key,
            proxy=proxy,
            cookies=self._cookies(cookies, provider, base_url),
            timeout=timeout,
            verify=False if insecure else (ca or True),
            impersonate=impersonate,
            transport=transport,
            strict=not lenient,
            **pairs(settings),
        )

    @staticmethod
    def _cookies(file: Path | None, provider: str | None, base_url: str | None) -> dict[str, str] | None:
        if file is None:
            return None
        declared = get_provider(provider) if provider else None
        domain = (declared.cookie_domain if declared else "") or urlsplit(
            base_url or (declared.url if declared else "")
        ).hostname
        if not domain:
            raise ConfigError("--cookies: name the provider with -p, so that its domain is known")
        found = load_cookies(file, domain)
        if not found:
            raise ConfigError(f"{file}: no cookie in it is for {domain}")
        return found
