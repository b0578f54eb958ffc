"""Every fault of the demo upstream, by every surface: the caller hears the answer or an error, as the table says."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.gateway.answers.fault_matrix import ROWS, Row, markdown, with_table
from tests.gateway.answers.fault_stage import Case, Result, Stage, site_of, staged
from tests.gateway.heard import PATHS
from tolmach.demo.answers import tokens
from tolmach.demo.faults import FAULTS, parse

ON_STAGE = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "routing.md"
HEAVY = "big-event"


def _cases() -> list[Case]:
    cases: list[Case] = []
    for row in ROWS:
        for way in row.ways:
            for surface in row.surfaces:
                for streamed in (False, True):
                    for another in (False, True):
                        for recover in ("off", "restart", "resume"):
                            cases.append(Case(len(cases), row.fault, way, surface, streamed, recover, another))
    return cases


CASES = _cases()


class Seen:
    """What came of all the cases, and the answers of the same services when they are well."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.results: dict[Case, Result] = {}
        self.well: dict[tuple[str, str], str] = {}

    async def run(self) -> None:
        stage = self.stage
        self.results = await stage.run(case for case in CASES if not case.fault.startswith(HEAVY))
        for case in CASES:
            if case.fault.startswith(HEAVY):  # one at a time: a machine with few processors has its hands full
                self.results[case] = await stage.ask(case)
        for case in stage.healthy:
            result = await stage.ask(case)
            assert str(result) == "ok 1", f"{case}: {result}"
            self.well[case.surface, case.service] = result.heard.text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen() -> AsyncGenerator[Seen, None]:
    async with staged(CASES) as stage:
        found = Seen(stage)
        await found.run()
        yield found


def answers(case: Case, result: Result, well: str) -> str:
    """The text of the whole answer, as the fault changes it where the first target gave it."""
    name, value = parse(case.fault)[0].fault.name, parse(case.fault)[0].value
    if name == "malformed" and case.streamed and case.recover == "resume" and result.attempts == 1:
        pieces = tokens(well, {})
        return "".join(pieces[: int(value)] + pieces[int(value) + 1 :])
    if result.second:
        return well
    if name == "rewritten" and not case.streamed:  # what was streamed cannot be taken back
        return f"Let me say that again.\n\n{well}"
    return joined("".join(tokens(well, {name: value})))


def joined(text: str) -> str:
    """The text with its surrogates joined. A body that is passed on has them as the service wrote them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@ON_STAGE
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_fault_ends_as_the_table_says(seen: Seen, row: Row) -> None:
    cases = [
        case for case in CASES if case.fault == row.fault and case.way in row.ways and case.surface in row.surfaces
    ]
    assert len(cases) == 12 * len(row.surfaces) * len(row.ways)
    for case in cases:
        result, cell = seen.results[case], row.cell(case.streamed, case.recover, case.another)
        assert cell.allows(result.heard.outcome, result.first, result.second), f"{case}: {result}, not {cell}"


@ON_STAGE
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_the_text_is_that_of_the_answer(seen: Seen, row: Row) -> None:
    cases = [
        case for case in CASES if case.fault == row.fault and case.way in row.ways and case.surface in row.surfaces
    ]
    for case in cases:
        result = seen.results[case]
        whole = answers(case, result, seen.well[case.surface, case.service])
        text = joined(result.heard.text) if case.way == "passed" else result.heard.text
        assert text == whole if result.heard.outcome == "ok" else whole.startswith(text), str(case)
        assert text or result.heard.outcome != "cut", str(case)


@ON_STAGE
async def test_who_answered_and_after_how_many_attempts_is_told_as_it_was(seen: Seen) -> None:
    for case, result in seen.results.items():
        assert 1 <= result.attempts <= 3, str(case)
        if result.heard.outcome == "ok" and not (case.streamed and case.recover == "resume"):
            which = "second" if result.second else "first"
            assert result.target == f"{which}{case.number}/m", str(case)
            assert result.attempts >= 1 + bool(result.second), str(case)


@ON_STAGE
async def test_the_time_limits_fire(seen: Seen) -> None:
    """Each target's silence is ended by its limit; all that is added is what a busy machine takes."""
    for case, result in seen.results.items():
        assert result.seconds < 20, str(case)


@ON_STAGE
async def test_nothing_is_left_behind(seen: Seen) -> None:
    stage = seen.stage
    assert stage.gateway.under_way == 0
    assert not [task for task in asyncio.all_tasks() if _is_of_a_question(task)]
    assert not [one.id for one in stage.gateway.router.health.snapshot(0.0) if one.probing]
    for pair in stage.pairs:
        for demo in pair:
            await demo.log.wait_open_connections(2)
            assert demo.log.open_connections <= 2


def _is_of_a_question(task: "asyncio.Task[object]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(part in code.co_filename for part in ("tolmach/gateway/", "tolmach/routing/"))


def test_every_fault_stands_in_the_table_for_each_way_that_can_meet_it() -> None:
    stand = {
        (parse(row.fault)[0].fault.name, way, surface) for row in ROWS for way in row.ways for surface in row.surfaces
    }
    wanted = {
        (fault, way, surface)
        for fault in FAULTS
        for way in ("passed", "read")
        for surface in PATHS
        if site_of(fault, surface, "passed" if way == "passed" else "read") is not None
    }
    assert stand == wanted
    assert len(CASES) == len({str(case) for case in CASES})


def test_the_documentation_shows_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, f"run `python -m tests.gateway.answers.fault_matrix {DOCUMENT.relative_to(ROOT)}`"
    assert markdown() in text
