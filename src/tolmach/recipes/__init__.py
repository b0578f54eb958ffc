"""From the traffic of an unknown chat API to a recipe that asks it. Pure, but for `files` and `running`.

`infer.infer` makes a draft of what `har` and `curl` read; `writing` makes a file of it, `files` reads one.
"""

__all__: list[str] = []
