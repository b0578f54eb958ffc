"""Transports: what carries requests to a service."""

from anychat.transport.base import Exchange, Timeouts, Transport, TransportOptions, read
from anychat.transport.exchange import open_exchange

__all__ = ["Exchange", "Timeouts", "Transport", "TransportOptions", "open_exchange", "read"]
