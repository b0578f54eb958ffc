"""Who may ask the gateway, and how much: keys of callers and their limits.

`keys` and `rules` are pure; `limits` holds keys to what they allow, through a `state`.
"""
