"""`tolmach.toml`: frozen settings, every mistake by file, line and key, and reading it again while it is in use.

`Settings.load` reads it, `LiveSettings` follows it. What the settings mean for targets is `routing.from_settings`.
"""

from tolmach.configuration.live import LiveSettings
from tolmach.configuration.problems import InvalidSettings, Problem
from tolmach.configuration.settings import Settings, find_config
from tolmach.configuration.sites import provider_site, public_models
from tolmach.configuration.tables import (
    Cors,
    EgressTable,
    GatewayTable,
    LedgerTable,
    LimitsTable,
    LogTable,
    OtelTable,
    PriceTable,
    ProviderTable,
    Route,
    TimeoutsTable,
)

__all__ = [
    "Cors",
    "EgressTable",
    "GatewayTable",
    "InvalidSettings",
    "LedgerTable",
    "LimitsTable",
    "LiveSettings",
    "LogTable",
    "OtelTable",
    "PriceTable",
    "Problem",
    "ProviderTable",
    "Route",
    "Settings",
    "TimeoutsTable",
    "find_config",
    "provider_site",
    "public_models",
]
