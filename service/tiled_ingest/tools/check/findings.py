"""What `check` says about one thing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ANSWER_S_MAX = 10.0  # a person waits

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `hint` says what to do when it is not `ok`."""

    name: str
    verdict: Verdict
    detail: str
    hint: str = ""


Findings = Iterator[Finding]


def counted(number: int, what: str) -> str:
    """Return e.g. `1 partition`, `2 partitions`."""
    return f"{number} {what}" + "s" * (number != 1)
