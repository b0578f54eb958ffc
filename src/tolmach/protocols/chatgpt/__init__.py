"""The web conversation of chatgpt.com.

`web` is the protocol; `answer` and `patch` read its streams, `proof` solves its puzzle.
"""
