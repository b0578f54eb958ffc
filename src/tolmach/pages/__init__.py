"""Pages with an assistant as sites: found by discovery at the first question, asked, and found again when refused."""

__all__: list[str] = []
