"""Settings into targets: what `tolmach.toml` names, as it is asked."""

from collections.abc import Callable

from msgspec import structs

from tolmach.configuration import GatewayTable, ProviderTable, Settings, provider_site, public_models
from tolmach.configuration import Route as RouteTable
from tolmach.protocols.base import Site
from tolmach.providers.base import Access, open_session
from tolmach.routing.health import Circuit
from tolmach.routing.policy import Rules
from tolmach.routing.targets import Provider, Route, Targets
from tolmach.session import Session
from tolmach.transport import Timeouts

__all__ = ["targets_of"]


def targets_of(
    settings: Settings,
    previous: Targets | None = None,
    *,
    reach: Callable[[Access], Access] | None = None,
    opened: Callable[[Site, Access], Session] = open_session,
) -> Targets:
    """The targets of the settings; sessions of `previous` go on where their provider is unchanged.

    `reach` gives how each provider is reached, of what its table says; `opened` opens the sessions.
    Raises `ConfigError` when a file that the settings name is not there any more.
    """
    providers = [_provider(row, settings.gateway, reach) for row in settings.providers.values()]
    routes = {name: _route(route) for name, route in settings.routes.items()}
    return Targets(providers, routes, previous, opened=opened)


def _provider(row: ProviderTable, gateway: GatewayTable, reach: Callable[[Access], Access] | None) -> Provider:
    site, access = provider_site(row)
    times = gateway.timeouts
    return Provider(
        name=row.name,
        site=structs.replace(site, egress=gateway.egress.allow),
        access=access if reach is None else reach(access),
        models=public_models(row) or {model: model for model in site.models},
        strict=row.strict,
        emulate=frozenset(row.emulate),
        timeouts=Timeouts(
            connect=times.connect, first_byte=times.first_token, idle=times.idle, total=row.timeout or times.total
        ),
        more_keys=row.keys[1:],
        prefill=row.prefill,
        answer_tokens=row.answer_tokens,
    )


def _route(route: RouteTable) -> Route:
    return Route(
        targets=route.targets,
        weights=route.weights,
        rules=Rules(
            strategy=route.strategy,
            attempts=route.attempts + (route.retries or 0),
            recover=route.recover,
            hedge_after=route.hedge_after,
            retries=route.retries,
            retry_after_wait=route.retry_after_wait,
        ),
        timeouts=Timeouts(
            connect=route.connect_timeout,
            first_byte=route.first_token_timeout,
            idle=route.idle_timeout,
            total=route.total_timeout,
        ),
        circuit=Circuit(
            failures=route.circuit_failures,
            first_open=route.circuit_first_open,
            longest_open=route.circuit_longest_open,
            credentials_open=route.circuit_longest_open,
        ),
    )
