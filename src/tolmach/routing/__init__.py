"""Which target is asked next, when to give up, and how a broken answer goes on.

`policy` says the next step, `health` remembers how the targets did, `seam` joins a rescue's text to the answer so
far: all three are pure. Clock and randomness are handed in.
"""

__all__: list[str] = []
