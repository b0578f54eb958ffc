"""From a provider's table to what a session is opened with."""

from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from tolmach.configuration.tables import ProviderTable
from tolmach.cookies import load_cookies
from tolmach.pages.site import PAGE, page_site
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.providers.registry import configured, get_provider
from tolmach.providers.sites.apis import api_site

__all__ = ["provider_site", "public_models"]


def provider_site(row: ProviderTable) -> tuple[Site, Access]:
    """The site and how to reach it, for `tolmach.providers.base.open_session`.

    Raises `ConfigError` when a file that the table names is not there any more.
    """
    site = _site(row)
    names = row.model_names
    models = tuple(dict.fromkeys(names.values()))
    site = structs.replace(
        site,
        name=row.name,
        default_model=names.get(row.default_model, row.default_model) or (models[0] if models else ""),
        models=models or site.models,
        aliases=site.aliases | {public: own for public, own in names.items() if public != own},
    )
    return site, _access(row, site)


def public_models(row: ProviderTable) -> dict[str, str]:
    """The models that callers see: public name -> the service's own. Those of a provider class when none are given."""
    if row.models or not row.type:
        return row.model_names
    provider = get_provider(row.type)
    return {model: model for model in provider.models} | provider.model_aliases


def _site(row: ProviderTable) -> Site:
    if row.type:
        return _of_class(row)
    if row.service:
        return api_site(row.service, {}, url=row.url, options=row.options)
    if row.protocol == PAGE:
        return page_site(row.url, row.options, name=row.name)
    return Site(name=row.name, url=row.url, protocol=configured(row.protocol, row.options))


def _of_class(row: ProviderTable) -> Site:
    site = get_provider(row.type).site_at(row.url)
    if not row.options:
        return site
    options = msgspec.to_builtins(site.protocol) | row.options
    return structs.replace(site, protocol=create(site.protocol.name, options))


def _access(row: ProviderTable, site: Site) -> Access:
    cookies = row.cookies
    if isinstance(cookies, str):
        cookies = load_cookies(cookies, site.cookie_domain or urlsplit(site.url).hostname or "") if cookies else {}
    return Access(
        proxy=row.proxy or None,
        cookies=cookies or None,
        headers=row.headers,
        timeout=row.timeout,
        verify=row.verify,
        impersonate=row.impersonate or None,
        api_key=row.keys[0],
    )
