"""Clients with the shape of the openai package: `client.chat.completions.create(...)`, asynchronous and synchronous.

`clients` has the classes that `tolmach` exports; `asking` finds whom each call means, `call` makes it ready,
`completions`, `models` and `embeddings` shape what comes back, `routed` puts the targets of routes behind it.
"""
