"""The gateway: any provider behind the OpenAI and Anthropic APIs.

`core` finds the target of a request, `assembly` makes a gateway of the settings, `reloading` changes it. The rooms
below are its parts. From outside come these three, `explain`, and what serves a gateway from `serving`.
"""
