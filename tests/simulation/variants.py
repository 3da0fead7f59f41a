"""Every wrong engine and loop, what must be seen of each, and how many histories it takes to see it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tiled_ingest.core.engine import Engine

from . import broken, broken_loops
from .broken import Bent, WrongInside
from .options import Options
from .world import MakeEngine, World

_ABSENT = r"is not settled: the (row|value) .* (0 times|not in)|rows: [1-9]\d* lost"
_TWICE = r"is in .* [2-9] times|[1-9]\d* too many|different lengths"
_BURIED = r"a sound .* is a dead letter|no end of coming to rest"
VARIANTS: dict[
    type[Bent], str
] = {  # and what must be seen of each: a pattern that says that it is caught for its own fault
    broken.CommitsEarly: r"committed at .* is not settled",
    broken.ConfirmsBeforePerforming: _ABSENT,
    broken.DoesNotReadBack: _ABSENT,
    broken.ForgetsResumePoint: _BURIED,
    broken.RetriesBlindly: _TWICE,
    broken.CountsWithoutLooking: _ABSENT,
    broken.ComparesNumbersOnly: _ABSENT,
    broken.DropsDeadLetters: r"not in the dead letters|is no dead letter",
    broken.SettlesUnannounced: r"was not announced",
    broken.TakesDeadLettersForConfirmed: r"not in the dead letters|is no dead letter",
    broken.LosesMetadata: rf"{_BURIED}|belongs to claim",
    broken.SwapsRows: rf"out of order|{_ABSENT}",
    broken.SwapsWholeRows: r"rows: out of order",
    broken.ReversesLetters: r"dead letter of .* came after that of",
    broken.CommitsAfterRelease: r"which it does not own",
    broken.AdoptsForeignRuns: r"is someone else's",
    broken.DoesNotSwitch: rf"failed, though Tiled never rejected it|{_TWICE}",
    broken.TakesChunksForGranted: r"'ragged'\) should hold",
    broken.AppendsToInherited: _TWICE,
    broken.UsesAnOrderAgain: _TWICE,
    broken.DeletesTheChild: r"failed, though Tiled never rejected it",
    broken.DropsTheSharedTable: _ABSENT,
    broken.RebuildsFromWhatIsLeft: rf"no end of coming to rest|{_ABSENT}",
    broken.CountsRedelivered: r"frames: \[\] lost, .* too many",
    broken.MarksFailedFirst: r"is refused, but its .* is no dead letter",
    broken.RefusesWhatComesLate: r"though this claim gave up its run",
    broken.ReopensUnconfirmed: r"is open again, but a successor resumes",
    broken.ReopensUncovered: r"is open again, but a successor resumes",
    broken.ReopensWithoutABeginning: r"is open again, but the log had lost",
    broken.ForgetsWhatHasWaited: r"is not settled",
    broken_loops.TakesTheOldDeque: r"no end of",
    broken_loops.DrainsLater: r"which it does not own",
    broken_loops.DropsTheRest: rf"{_ABSENT}|no end of",
    broken_loops.PutsTheRestLast: r"out of order|is not settled",
    broken_loops.BelievesInCommits: r"no end of",
    broken_loops.DrainsDeaf: r"no end of",
}


def bend(variant: type[Bent], make_engine: MakeEngine) -> MakeEngine:
    """Make a maker of engines that are wrong in one way."""
    return lambda policy, nonce: variant(make_engine(policy, nonce))


@contextmanager
def wrong(variant: type[Bent]) -> Iterator[MakeEngine]:
    """Yield a maker of engines that are wrong in one way; outside, all is right again."""
    with pytest.MonkeyPatch.context() as patch:
        if issubclass(variant, WrongInside):
            variant.patch(patch)
        yield bend(variant, Engine)


def caught(variant: type[Bent], most: int) -> tuple[int, str] | None:
    """Return how many histories, from seed 0 on, it takes to see that an engine is wrong, and what is seen then.

    A history that fails with the right engine, too, shows nothing, nor does one that fails otherwise than this engine's
    fault makes it fail. `None` if so many do not show it.
    """
    pattern = VARIANTS.get(variant, "")
    for seed in range(most):
        options = Options(seed, **variant.meets)
        with wrong(variant) as make_engine:
            violations = World(options, make_engine).run().violations
        found = [told for told in violations if re.search(pattern, told)]
        if found and not World(options, Engine).run().violations:
            return seed + 1, found[0]
    return None
