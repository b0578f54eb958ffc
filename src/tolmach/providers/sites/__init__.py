"""Declarations of sites. `tolmach.providers.registry` knows them by name and loads each at its first use."""
