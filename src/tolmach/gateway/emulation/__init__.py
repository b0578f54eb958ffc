"""Tools and JSON answers for services that know only text. Pure: the caller does the asking.

`instructions.emulate` and `instructions.answer` are the way in; `schema` checks values, `written_calls` reads calls
out of text.
"""
