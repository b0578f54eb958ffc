"""Who is asked: what a client was told, whom each call means, and a session for each of them."""

import os
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Messages, parse_messages
from tolmach.client.call import Continued, Direct, Provider, Question, parse_conversation, split_call, usage_asked
from tolmach.client.embeddings import CreateEmbeddingResponse, EmbeddingsAsked, fetch_embeddings
from tolmach.client.models import Model
from tolmach.errors import ConfigError, ModelNotFound, UnsupportedFeature
from tolmach.pages.site import PageAssistant, page_site
from tolmach.protocols.base import Forwarding, Site
from tolmach.protocols.model_lists import ListsModels
from tolmach.providers.base import AbstractProvider, Sessions, checked_url, split_options
from tolmach.providers.names import find_named, named
from tolmach.providers.registry import endpoint, registered, resolve, sites_having
from tolmach.providers.sites.apis import api_site, apis
from tolmach.session import ChallengeHandler, Session
from tolmach.transport import Timeouts, Transport

if TYPE_CHECKING:
    from tolmach.client.routed import Routes
    from tolmach.configuration import Settings
    from tolmach.pages.session import Assistant, PageSession
    from tolmach.routing.targets import Plan

__all__ = ["Asker"]


class _One(Struct, frozen=True):
    """A site that is asked by itself; `own` says whether the client's credentials are for it."""

    site: Site
    model: str
    own: bool


class Asker:
    """What both clients are: their settings, and a session for each site."""

    def __init__(
        self,
        *,
        provider: Provider | None = None,
        base_url: str | None = None,
        protocol: str | None = None,
        api_key: str | None = None,
        proxy: str | None = None,
        cookies: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        verify: bool | str = True,
        impersonate: str | None = None,
        transport: Transport | str | None = None,
        on_challenge: ChallengeHandler | None = None,
        strict: bool = True,
        routes: Mapping[str, Any] | None = None,
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        config: "str | os.PathLike[str] | Literal[True] | Settings | None" = None,
        page: str | None = None,
        bot: str = "",
        accept_consent: bool = False,
        **options: Any,
    ) -> None:
        """
        `provider` answers when a call names none: a class, or the name of a row of the tables below, of a class, or
        of a service whose key is in its variable (`"groq"`). `base_url` with `protocol` is an endpoint that no
        class names, `options` being the protocol's own; `base_url` with `provider` moves it there. A
        client with either keeps `api_key`, `cookies` and `headers` for that; a call that names another
        provider goes there without them.
        `page` is the address of a page with an assistant, which discovery finds at the first question: `bot`
        says which by its id or name, `accept_consent` agrees to what the site asks its visitors to agree to.
        With `base_url` and `protocol` it is the protocol's own option.
        `timeout` is seconds for a whole answer. With `strict=False` options that a provider cannot
        honour are dropped with a notice. `routes` and `providers` are tables as in `tolmach.toml`, `config`
        is such a file (True for the one that `tolmach serve` finds; or `Settings`): their model names are answered by
        plans of targets. Raises `ConfigError` that names the argument that is wrong.
        """
        self._service = ""
        self._row = ""
        self._provider: type[AbstractProvider] | None = None
        self._base_url = None if base_url is None else checked_url(base_url, "base_url")
        self._endpoint = _endpoint_of(page, bot, accept_consent, provider, base_url, protocol, options)
        settings = None
        if routes is not None or providers is not None or config is not None:
            # Most clients have no routes, and do without what reads them.
            from tolmach.client import routed

            settings = routed.settings_of(routes, providers, config)
        if provider is not None:
            self._answered_by(provider, settings, api_key)
        self._strict = strict
        given = {
            "api_key": api_key,
            "cookies": cookies,
            "headers": headers,
            "impersonate": impersonate,
            "proxy": proxy,
            "timeout": timeout,
            "transport": transport if isinstance(transport, str) else None,
            "verify": verify,
        }
        self._access, _ = split_options(given)
        way = None if isinstance(transport, str) else transport
        self._sessions = Sessions(transport=way, on_challenge=on_challenge)
        self._routes: Routes | None = None
        if settings is not None:
            self._check_credentials()
            self._routes = routed.Routes(settings, self._access, way, on_challenge)

    def _answered_by(self, provider: Provider, settings: "Settings | None", api_key: str | None) -> None:
        """Who answers when a call names nobody. Raises `ModelNotFound` and `ConfigError`."""
        kind = named(provider, settings.providers if settings else ()) if isinstance(provider, str) else None
        if kind is None or kind.kind == "class":
            self._provider, _ = resolve("", kind.name if kind else provider)
        elif kind.kind == "row":
            if self._base_url is not None:
                raise ConfigError(f"base_url: the configuration says where {kind.name} is; change its row")
            self._row = kind.name
        else:
            self._service = kind.name
            self._endpoint = _service_site(kind.name, self._base_url or "", api_key or "")

    def _check_credentials(self) -> None:
        """Raises `ConfigError` for what would be sent to every target alike."""
        access = self._access
        given = {"api_key": access.api_key, "cookies": access.cookies, "headers": access.headers}
        misplaced = [name for name, value in given.items() if value]
        if misplaced and not self._names_one:
            where = f"the row of {self._row} says it" if self._row else "it would go to every target"
            raise ConfigError(f"{misplaced[0]}: {where}; give it to the provider, in its row")

    @property
    def _names_one(self) -> bool:
        """Whether the client says who answers when a call does not."""
        return self._endpoint is not None or self._provider is not None

    def _question(
        self,
        model: str,
        messages: Messages,
        stream: bool,
        provider: Provider | None,
        conversation: Continued,
        strict: bool | None,
        options: dict[str, Any],
    ) -> Question:
        timeout, options = split_call(options)
        usage = usage_asked(options, stream)
        strict = self._strict if strict is None else strict
        turn = ChatRequest(
            messages=parse_messages(messages),
            model=model,
            stream=stream,
            conversation=parse_conversation(conversation),
            options={name: value for name, value in options.items() if value is not None},
        )
        whom = self._whom(model, provider)
        if not isinstance(whom, _One):
            routes = self._routes
            assert routes is not None  # a plan is one of theirs
            return Question(routes.ask(whom, turn, strict=strict, timeout=timeout), usage)
        session, limits = self._session(whom, timeout)
        turn = msgspec.structs.replace(turn, model=whom.model)
        return Question(Direct(session, turn, strict, limits), usage)

    def _session(self, one: _One, timeout: float | None) -> tuple[Session, Timeouts]:
        access = self._access if one.own else self._access.without_credentials()
        if timeout is not None:
            access = msgspec.structs.replace(access, timeout=timeout)
        return self._sessions.get(one.site, access), access.timeouts(one.site)

    # Who is asked

    def _whom(self, model: str, provider: Provider | None) -> "_One | Plan":
        """Who may answer to a name. Raises `ModelNotFound`, and `ConfigError` for a name that several have."""
        if not isinstance(model, str):
            raise ConfigError(f"model: a text such as 'gpt-4o' or 'groq/llama-3.3-70b', not {type(model).__name__}")
        row = self._row_of(provider)
        if self._routes is not None and (row or provider is None):
            try:
                return self._routes.plan(model, row)
            except ModelNotFound:
                if not self._names_one:
                    raise
        return self._one(model, provider)

    def _row_of(self, provider: Provider | None) -> str:
        """The row of the configuration that is meant; empty where another is, or none is named."""
        if provider is None or self._routes is None:
            return self._row
        found = find_named(provider, self._routes.rows) if isinstance(provider, str) else None
        return found.name if found is not None and found.kind == "row" else ""

    def _one(self, model: str, provider: Provider | None) -> _One:
        """A site that no route leads to."""
        if provider is None and self._endpoint is not None:
            return _One(self._endpoint, model or self._endpoint.default_model, True)
        if provider is None and self._provider is None:
            return self._named_in(model)
        if isinstance(provider, str) and (found := named(provider)).kind == "service":
            return self._of_service(found.name, model)
        return self._of_class(provider or self._provider, model)

    def _named_in(self, model: str) -> _One:
        """Who is meant where only the model says it."""
        try:
            return self._of_class(None, model)
        except ModelNotFound:
            name, slash, rest = model.partition("/")
            found = find_named(name) if slash else None
            if found is not None and found.kind == "service":
                return self._of_service(found.name, rest)
            if found is not None or not model:
                raise
        sites = sites_having(model)
        text = f"no provider of this client has the model {model!r}: give it provider=, or config= or routes="
        if sites:
            text += f". {' and '.join(sites)} on the public web would: provider={sites[0]!r} asks there"
        raise ModelNotFound(text)

    def _of_class(self, provider: Provider | None, model: str) -> _One:
        found, model = resolve(model, provider)
        if self._endpoint is None and self._provider in (None, found):
            return _One(found.site() if self._base_url is None else found.site_at(self._base_url), model, True)
        return _One(found.site(), model, False)

    def _of_service(self, name: str, model: str) -> _One:
        own = name == self._service and self._endpoint is not None
        site = self._endpoint if own and self._endpoint is not None else _service_site(name)
        return _One(site, model.removeprefix(f"{name}/") or site.default_model, own)

    # Besides questions

    async def _list_models(self, provider: Provider | None, timeout: float | None) -> list[Model]:
        """The models of the client, or of a provider. Raises `UnsupportedFeature` where there is no list of them."""
        row = self._row_of(provider)
        if self._routes is not None and provider is None and not self._names_one and not row:
            return [Model(id=name, owned_by=owner) for name, owner in self._routes.models()]
        if self._routes is not None and row:
            target = self._routes.plan("", row).first
            return await _listed(target.session, self._routes.service_of(row), target.timeouts)
        if provider is None and not self._names_one:
            own = [(each, name) for each in registered() for name in (*each.models, *each.model_aliases)]
            return [Model(id=name, owned_by=each.__name__) for each, name in own]
        one = self._one("", provider)
        session, limits = self._session(one, timeout)
        return await _listed(session, one.site.name if one.site.name in apis() else "", limits)

    async def _embed(self, asked: EmbeddingsAsked) -> CreateEmbeddingResponse:
        """The vectors. Raises `UnsupportedFeature` where whoever is asked has none."""
        whom = self._whom(asked.model, asked.provider)
        if not isinstance(whom, _One):
            routes = self._routes
            assert routes is not None  # a plan is one of theirs
            return await routes.embed(whom, asked)
        session, limits = self._session(whom, asked.timeout)
        protocol = session.site.protocol
        if not isinstance(protocol, Forwarding) or "embeddings" not in protocol.forwards:
            raise UnsupportedFeature(f"{session.site.name} gives no embeddings", feature="model")
        call = protocol.forward("embeddings", session.site, asked.body, whom.model, session.state)
        return await fetch_embeddings(session, call, asked.inputs, limits)

    def _assistant(self) -> "Coroutine[Any, Any, Assistant]":
        site = self._endpoint
        if site is None or not isinstance(site.protocol, PageAssistant):
            raise ConfigError("assistant() is for a client with page=")
        return cast("PageSession", self._sessions.get(site, self._access)).assistant()

    def _forget(self) -> None:
        self._sessions.clear()
        if self._routes is not None:
            self._routes.clear()


def _service_site(name: str, url: str = "", api_key: str = "") -> Site:
    """A service of the table. The key of its variable is for its own address alone. Raises `ConfigError`."""
    return api_site(name, {} if url else os.environ, url=url, api_key=api_key)


async def _listed(session: Session, service: str, timeouts: Timeouts) -> list[Model]:
    """The models of a site: as it says itself where its protocol has a list, else those that are known of it."""
    site = session.site
    has_list = isinstance(site.protocol, ListsModels) and not (service and not apis()[service].models)
    if has_list:
        found = await session.carry_out(cast(ListsModels, site.protocol).list_models(site, session.state), timeouts)
        return [Model(id=one.id, created=one.created, owned_by=one.owner or site.name) for one in found]
    names = dict.fromkeys((*site.models, *site.aliases))
    if not names:
        raise UnsupportedFeature(f"{site.name} gives no list of its models", feature="models")
    return [Model(id=name, owned_by=site.name) for name in names]


def _endpoint_of(
    page: str | None,
    bot: str,
    accept_consent: bool,
    provider: Provider | None,
    base_url: str | None,
    protocol: str | None,
    options: dict[str, Any],
) -> Site | None:
    """The site that the arguments of a client describe without naming a provider. Raises `ConfigError`."""
    if page is not None and protocol is not None and base_url is not None:
        # Protocols of plugins have an option of this name: the page that their chat stands on.
        options, page = options | {"page": page}, None
    if page is not None:
        if options or not (provider is base_url is protocol is None):
            raise ConfigError("page= goes without provider=, base_url=, protocol= and options of a protocol")
        return page_site(page, {"bot": bot, "accept_consent": accept_consent})
    if bot or accept_consent:
        raise ConfigError("bot= and accept_consent= go with page=")
    if protocol is not None:
        if base_url is None or provider is not None:
            raise ConfigError("protocol= goes with base_url= and without provider=")
        return endpoint(base_url, protocol, **options)
    if options:
        raise ConfigError(f"unknown argument: {', '.join(options)}")
    if provider is None and base_url is not None:
        raise ConfigError("base_url= needs protocol= (see tolmach.protocols.PROTOCOLS) or provider=")
    return None
