"""`anychat.toml`: frozen settings, every mistake by file, line and key, and reading it again while it is in use."""

from anychat.configuration.live import LiveSettings
from anychat.configuration.problems import InvalidSettings, Problem
from anychat.configuration.settings import Settings, find_config
from anychat.configuration.sites import provider_site, public_models
from anychat.configuration.tables import (
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
