"""Pages with an assistant as sites: found by discovery at the first question, asked, and found again when refused.

`search` fetches what discovery wants to see, `assistants` chooses one, `cache` remembers findings, `session` asks.
"""

__all__: list[str] = []
