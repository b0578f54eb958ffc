"""The demo upstream: plays the server side of every protocol, strictly, with faults on request.

By the same families as `tolmach.protocols`. For tests and for the command `demo`; the product does not need it.
"""

from tolmach.demo.app import MOUNTS, App
from tolmach.demo.faults import FAULTS, HEADER, Fault, UnknownFault, help_text
from tolmach.demo.log import Log, Seen
from tolmach.demo.server import Demo, ThreadedDemo, serve_in_thread

__all__ = [
    "FAULTS",
    "HEADER",
    "MOUNTS",
    "App",
    "Demo",
    "Fault",
    "Log",
    "Seen",
    "ThreadedDemo",
    "UnknownFault",
    "help_text",
    "serve_in_thread",
]
