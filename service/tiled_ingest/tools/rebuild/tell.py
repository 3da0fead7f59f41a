"""Cases and what became of them, as lines and as plain values for JSON. Nothing steers a terminal."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .builder import Built
from .cases import Case

_REFUSALS_TOLD = 5


def case_lines(cases: Iterable[Case], built: Mapping[str, Built]) -> Iterator[str]:
    """Yield a line for each run, and more where something is still refused."""
    for case in cases:
        codes = ", ".join(f"{number} {code}" for code, number in case.spooled.codes.most_common())
        letters = f" ({codes})" if codes else ""
        uid, documents = case.spooled.uid, case.spooled.documents
        yield printable(f"{case.verdict:<8} {uid}  {documents} documents{letters}: {case.why}")
        if uid in built:
            yield from (printable(f"         {line}") for line in _outcome(built[uid]))


def _outcome(built: Built) -> Iterator[str]:
    yield f"-> not written: {built.error}" if built.error else f"-> {built.state}, {built.rows} rows"
    for code, number in built.refused.most_common():
        yield f"still refused: {number} {code}"
    for (topic, partition, offset), error in built.refusals[:_REFUSALS_TOLD]:
        yield f"  {topic}:{partition}:{offset}  {error}"


def case_json(case: Case, built: Built | None) -> dict[str, Any]:
    """Return a case for JSON."""
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
        told["refusals"] = [{"position": list(position), "error": error} for position, error in built.refusals]
    return told


def verdicts(cases: Iterable[Case]) -> str:
    """Return how many runs have which verdict, in words."""
    counts = Counter(case.verdict for case in cases)
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()) or "none"


def printable(text: str) -> str:
    """Return a line that can do nothing to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
