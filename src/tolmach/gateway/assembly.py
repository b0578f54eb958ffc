"""A gateway as `tolmach.toml` says: its settings read once, its parts put together."""

from functools import partial

from tolmach.access.keys import KeyRing
from tolmach.access.limits import Limiter
from tolmach.access.rules import in_words
from tolmach.chat import Conversation
from tolmach.configuration import Settings
from tolmach.gateway.answers.conversations import Conversations, Responses, StoredResponse
from tolmach.gateway.callers import Callers
from tolmach.gateway.core import Gateway
from tolmach.gateway.from_settings import AtStart, InForce
from tolmach.gateway.key_watch import KeyWatch
from tolmach.gateway.parts import Background, Closing, close_ledger, open_ledger
from tolmach.gateway.reloading import take_over
from tolmach.gateway.shared_circuits import SharedCircuits
from tolmach.gateway.shared_sessions import open_shared
from tolmach.gateway.telemetry.collector import open_telemetry
from tolmach.gateway.telemetry.recording import Recording
from tolmach.providers.base import open_session
from tolmach.routing.health import Health
from tolmach.routing.router import Router
from tolmach.state import State, open_state
from tolmach.state.stores import StateStore

__all__ = ["build", "check_served"]


def build(settings: Settings) -> Gateway:
    """A gateway as the settings say, with its parts. Raises `ConfigError` when there is nothing to serve."""
    start = AtStart.of(settings)
    state = open_state(start.state)
    now = InForce.of(settings, loopback=start.loopback, opened=open_shared(state) if start.shared else open_session)

    health = Health()
    circuits = SharedCircuits(state, health) if start.shared else None
    limiter = Limiter(state)
    callers = Callers(KeyRing(start.known.keys), limiter, now.prices, rule=now.key_rule, ever=start.known.ever)
    telemetry = open_telemetry(start.collector)
    ledger = open_ledger(start.ledger, start.retention_days, now.prices)

    gateway = Gateway(
        now.targets,
        router=Router(health, on_opened=circuits.tell if circuits else None),
        callers=callers,
        memory=_shared_memory(state) if start.shared else None,
        state=state,
        ledger=ledger,
    )
    gateway.observers += [Recording(ledger)] if ledger else []
    gateway.observers += [telemetry] if telemetry else []
    gateway.parts += [state]
    gateway.parts += [circuits] if circuits else []
    gateway.parts += [Closing(telemetry.close)] if telemetry else []
    gateway.parts += [Closing(partial(close_ledger, ledger))] if ledger else []
    if start.ledger is not None:
        gateway.parts += [KeyWatch(start.ledger, callers, gateway.cut_revoked, shared=start.shared)]
    gateway.parts += [Background(limiter.keep)]
    take_over(gateway, now)
    return gateway


def check_served(settings: Settings) -> str:
    """Who may ask, in words. Raises `ConfigError` for what cannot be served as it is configured."""
    start = AtStart.of(settings)
    now = InForce.of(settings, loopback=start.loopback)
    return in_words(len(start.known.keys), required=now.key_rule.requires(ever=start.known.ever))


def _shared_memory(state: State) -> tuple[Conversations, Responses]:
    """Where conversations and answers are remembered that all replicas know."""
    conversations = StateStore(state, "conversation", Conversation)
    return Conversations(conversations), Responses(StateStore(state, "response", StoredResponse))
