"""The servers under the gateway: interfaces to RSGI and ASGI, granian in this process, several processes on a port.

From outside come `server.serving`, `server.run`, `asgi.AsgiApp` and `workers.Workers`; the core knows none of it.
"""
