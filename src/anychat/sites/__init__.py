"""Declarations of sites. `anychat.registry` knows them by name and loads each at its first use."""
