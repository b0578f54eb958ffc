"""Clients with the shape of the openai package: `client.chat.completions.create(...)`, asynchronous and synchronous.

`clients` has the classes that `tolmach` exports; `call` makes a call ready, `completions` shapes what comes back,
`routed` puts the targets of routes behind it.
"""
