"""Plain HTTP/1.1 on the running event loop itself, for servers nearby.

`transport.PlainTransport` is all that others import.
"""
