"""The APIs that the gateway speaks to its callers: bodies into questions, events into bodies. Pure.

A surface implements `base.Surface`; each API has a module for its answers and one for its requests.
`bodies` checks JSON of callers wherever it enters.
"""
