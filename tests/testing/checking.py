"""The conformance suite on one answer: a part of its cuts by the seed of the run, or all of them."""

from tests import sweeps
from tolmach.testing import conformance
from tolmach.testing.conformance import Answer

__all__ = ["check"]


def check(answer: Answer) -> None:
    """All of `conformance.check` with `--all`; else fewer cuts, and truncations at both ends and some between."""
    if sweeps.whole():
        conformance.check(answer)
        return
    seed = sweeps.seed()
    conformance.check_cuts(answer, seed=seed, rounds=3)
    conformance.check_line_ends(answer, seed=seed)
    conformance.check_truncation(answer, seed=seed, every=300, ends=60, sample=60)
    conformance.check_mutations(answer, seed=seed, rounds=4)
