"""How a question is put to a target: what may be left out of it, and what is emulated."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from tolmach.chat import ChatRequest, Done, Event, Usage
from tolmach.errors import ContextTooLong, TolmachError
from tolmach.gateway.answers.estimate import answer_texts, estimate_prompt, estimate_usage
from tolmach.gateway.emulation.instructions import answer, emulate
from tolmach.routing.journal import Attempt, Sent
from tolmach.routing.targets import Target
from tolmach.transport import Timeouts

__all__ = ["NEVER_DROPPED", "ask"]

NEVER_DROPPED = frozenset(
    {
        "audio",
        "container",
        "function_call",
        "functions",
        "images",
        "include",
        "logprobs",
        "mcp_servers",
        "modalities",
        "n",
        "response_format",
        "tool messages",
        "tool_choice",
        "tools",
        "top_logprobs",
        "web_search_options",
    }
)
"""Without these the answer would be another than the one asked for: a target that cannot honour them is not asked.

What is not named here only shades the answer (sampling, length, effort, what the price or the
service's records hang on): it is left out for a target that does not know it, and the caller is told.
"""


_WORDS_COUNT = (
    "(Tools and JSON are put into words for this service, and these count, too: "
    "ask without them, with shorter ones, or another service.)"
)


def ask(
    target: Target,
    turn: ChatRequest,
    timeouts: Timeouts,
    attempt: Attempt,
    seen: list[Event],
    *,
    forgive: bool = False,
) -> AsyncGenerator[Event, None]:
    """The events of the target's answer, with what its provider emulates.

    Whoever asks puts them into `seen`. What is sent is noted in `attempt`. With `forgive` one malformed event of a
    stream is left out.

    Raises `BadRequest` or `UnsupportedFeature` for what cannot be emulated; the generator raises
    `UnsupportedFeature` for what the target cannot honour.
    """
    provider = target.provider
    strict = True if provider.strict else NEVER_DROPPED
    emulation = emulate(turn, provider.emulate) if provider.emulate else None
    if emulation is None:
        attempt.send(partial(estimate_prompt, turn), seen)
        return target.session.ask(turn, strict=strict, timeouts=timeouts, forgive=forgive)

    def put(turn: ChatRequest) -> AsyncGenerator[Event, None]:
        events = target.session.ask(turn, strict=strict, timeouts=timeouts, forgive=forgive)
        return _counted(turn, events, attempt.send(partial(estimate_prompt, turn), []))

    return answer(emulation, put, _call_id)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


async def _counted(turn: ChatRequest, events: AsyncGenerator[Event, None], sent: Sent) -> AsyncGenerator[Event, None]:
    """The events, noted as what came of what was `sent`, with an estimate of the tokens where the service tells none.

    What is asked and answered here is longer than what the caller sees, so the surface cannot tell.
    """
    seen, counted = sent.seen, False
    try:
        async with aclosing(events):
            async for event in events:
                counted = counted or isinstance(event, Usage)
                if isinstance(event, Done) and not counted:
                    yield estimate_usage(turn, answer_texts(seen))
                seen.append(event)
                yield event
    except TolmachError as error:
        sent.error = error
        if isinstance(error, ContextTooLong):
            error.args = (f"{error} {_WORDS_COUNT}",)
        raise
