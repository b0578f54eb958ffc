"""Declarations of sites and, in `apis.toml`, of services with an API. No code that asks.

`tolmach.providers.registry` knows the classes by name and loads each at its first use; `apis.table` reads the services.
"""
