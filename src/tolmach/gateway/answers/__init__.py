"""How a question becomes an answer: asked of targets, streamed or whole, gone on with where one breaks off.

`answering.Answering` is the way in; `outcomes` says what the end of an attempt means; conversations are remembered
here. It knows surfaces and emulation, and neither a server nor the core.
"""
