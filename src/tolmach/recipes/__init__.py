"""From the traffic of an unknown chat API to a recipe that asks it."""

__all__: list[str] = []
