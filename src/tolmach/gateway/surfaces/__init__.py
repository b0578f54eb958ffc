"""The APIs that the gateway speaks to its callers: bodies into questions, events into bodies. Pure."""
