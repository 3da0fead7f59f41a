"""Cases and what became of them, as lines and as plain values for JSON. Nothing steers a terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .builder import RUN_FAILED, Built
from .cases import Case
from .plan import Plan
from .spool import Stranger


def case_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for each run, and more where something is still refused."""
    for case in plan.cases:
        codes = ", ".join(f"{number} {code}" for code, number in case.spooled.codes.most_common())
        letters = f" ({codes})" if codes else ""
        uid, documents = case.spooled.uid, case.spooled.documents
        yield printable(f"{case.verdict:<8} {uid}  {documents} documents{letters}: {case.why}")
        if uid in plan.built:
            yield from (printable(f"         {line}") for line in _outcome(plan.built[uid]))
        elif plan.begun and case in plan.to_write:
            yield "         -> not finished: to go on, repeat the command"


def _outcome(built: Built) -> Iterator[str]:
    yield f"-> not written: {built.error}" if built.error else f"-> {built.state}, {built.rows} rows"
    for code, number in built.refused.most_common():
        yield f"still refused: {number} {code}"
    for each in built.refusals:
        yield f"  {place(each.position)}  {each.document}: {each.code}: {each.error}"
    if left := built.refused.total() - built.refused[RUN_FAILED] - len(built.refusals):
        yield f"  ... and {left} more"


def stranger_lines(strangers: Sequence[Stranger], number: int) -> Iterator[str]:
    """Yield a line for each document of no run that is known."""
    for each in strangers:
        codes = f" ({', '.join(each.codes)})" if any(each.codes) else ""
        yield printable(f"leave    {place(each.position)}{codes}  {each.told}")
    if number > len(strangers):
        yield f"leave    ... and {number - len(strangers)} more"


def stranger_json(each: Stranger) -> dict[str, Any]:
    """Return a document of no run for JSON."""
    return {**asdict(each), "position": list(each.position), "codes": list(each.codes)}


def cases_json(plan: Plan) -> list[dict[str, Any]]:
    """Return the runs for JSON."""
    return [_case_json(case, plan.built.get(case.spooled.uid)) for case in plan.cases]


def _case_json(case: Case, built: Built | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "run": case.spooled.uid,
        "documents": case.spooled.documents,
        "dead_letters": dict(case.spooled.codes),
        "verdict": case.verdict,
        "why": case.why,
    }
    if built is not None:
        told["state"], told["rows"], told["error"] = built.state, built.rows, built.error
        told["refused"] = dict(built.refused)
        told["refusals"] = [{**asdict(each), "position": list(each.position)} for each in built.refusals]
    return told


def verdicts(cases: Iterable[Case]) -> str:
    """Return how many runs have which verdict, in words."""
    counts = Counter(case.verdict for case in cases)
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()) or "none"


def place(position: tuple[str, int, int]) -> str:
    """Return a position as it is spelled."""
    topic, partition, offset = position
    return f"{topic}:{partition}:{offset}"


def printable(text: str) -> str:
    """Return a line that can do nothing to a terminal: what cannot be printed is spelled as in Python's strings."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
