"""Every fault of the demo upstream, by every surface: the caller hears the answer or an error, as the table says."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs

from tests.gateway.answers.fault_matrix import ROWS, Row, markdown, with_table
from tests.gateway.answers.fault_stage import Case, Result, Stage, site_of, staged
from tests.gateway.heard import PATHS
from tests.sweeps import part
from tolmach.demo.answers import tokens
from tolmach.demo.faults import FAULTS, parse

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "routing.md"
HEAVY = "big-event"

CELLS = [
    (streamed, another, recover)
    for streamed in (False, True)
    for another in (False, True)
    for recover in ("off", "restart", "resume")
]


def _cases(row: Row, most: int) -> list[Case]:
    """Each cell of a row by at most so many of the surfaces and ways that it speaks of; their numbers are not given."""
    asked = [(way, surface) for way in row.ways for surface in row.surfaces]
    return [
        Case(0, row.fault, way, surface, streamed, recover, another)  # type: ignore[arg-type]  # a word of `recover`
        for streamed, another, recover in CELLS
        for way, surface in part(asked, most, f"{row}, {streamed}, {another}, {recover}")
    ]


def _numbered(cases: Iterable[Case]) -> list[Case]:
    return [structs.replace(case, number=number) for number, case in enumerate(cases)]


CASES = _numbered(
    case
    for row in ROWS
    for case in (part(_cases(row, 6), 6, str(row)) if row.fault.startswith(HEAVY) else _cases(row, 2))
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncGenerator[Stage, None]:
    async with staged(CASES) as made:
        yield made


async def _seen(stage: Stage, cases: list[Case]) -> dict[Case, Result]:
    if not cases[0].fault.startswith(HEAVY):
        return await stage.run(cases)
    # One at a time: a machine with few processors has its hands full.
    return {case: await stage.ask(case) for case in cases}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_fault_ends_as_the_table_says(stage: Stage, row: Row) -> None:
    cases = [
        case for case in CASES if case.fault == row.fault and case.way in row.ways and case.surface in row.surfaces
    ]
    results = await _seen(stage, cases)
    well = await _well(stage, cases)
    for case, result in results.items():
        cell = row.cell(case.streamed, case.recover, case.another)
        assert cell.allows(result.heard.outcome, result.first, result.second), f"{case}: {result}, not {cell}"
        _check_text(case, result, well[case.surface, case.service])
        _check_who_answered(case, result)
        # Each target's silence is ended by its limit; all that is added is what a busy machine takes.
        assert result.seconds < 20, str(case)
    await _check_nothing_is_left(stage)


async def _well(stage: Stage, cases: list[Case]) -> dict[tuple[str, str], str]:
    """The answers of the same services by the same surfaces, now that no fault happens."""
    kinds = {(case.surface, case.service) for case in cases}
    well: dict[tuple[str, str], str] = {}
    for case in stage.healthy:
        if (case.surface, case.service) in kinds:
            result = await stage.ask(case)
            if str(result) == "ok 2":  # it had a nonce that the fault has spoiled
                result = await stage.ask(case)
            assert str(result) == "ok 1", f"{case}: {result}"
            well[case.surface, case.service] = result.heard.text
    return well


def _check_text(case: Case, result: Result, well: str) -> None:
    """What came is the answer, or the beginning of it."""
    whole = answers(case, result, well)
    text = joined(result.heard.text) if case.way == "passed" else result.heard.text
    assert text == whole if result.heard.outcome == "ok" else whole.startswith(text), str(case)
    assert text or result.heard.outcome != "cut", str(case)


def _check_who_answered(case: Case, result: Result) -> None:
    """Who answered, and after how many attempts, is told as it was."""
    assert 1 <= result.attempts <= 3, str(case)
    if result.heard.outcome == "ok" and not (case.streamed and case.recover == "resume"):
        which = "second" if result.second else "first"
        assert result.target.partition("/")[0] == f"{which}{case.number}", str(case)
        assert result.attempts >= 1 + bool(result.second), str(case)


async def _check_nothing_is_left(stage: Stage) -> None:
    assert stage.gateway.under_way == 0
    assert not [task for task in asyncio.all_tasks() if _is_of_a_question(task)]
    assert not [one.id for one in stage.gateway.router.health.snapshot(0.0) if one.probing]
    for pair in stage.pairs:
        for demo in pair:
            await demo.log.wait_open_connections(2)
            assert demo.log.open_connections <= 2


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
    cases = [case for row in ROWS for case in _cases(row, 6)]
    assert len(cases) == len({str(case) for case in cases})
    assert len(cases) == sum(len(CELLS) * len(row.ways) * len(row.surfaces) for row in ROWS)


def test_the_documentation_shows_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, f"run `python -m tests.gateway.answers.fault_matrix {DOCUMENT.relative_to(ROOT)}`"
    assert markdown() in text
