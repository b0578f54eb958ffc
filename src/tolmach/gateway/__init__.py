"""The gateway: any provider behind the OpenAI and Anthropic APIs.

`core` finds the target of a request, `assembly` makes a gateway of the settings; the rooms below are its parts.
From outside come `core.Gateway`, `assembly`, `explain`, and what serves it from `serving`.
"""
