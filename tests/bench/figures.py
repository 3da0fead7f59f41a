"""What a row of the table says: numbers of several repetitions, beside those of a peer in the same run, and a goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """What is to be reached: a bound of the value, or of its ratio to the peer's."""

    of: Literal["value", "ratio"]
    bound: Literal[">=", "<="]
    number: float

    def __str__(self) -> str:
        return f"{self.bound} {self.number:g}{' x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes
    ----------
    values, peers
        One for each repetition; both of one repetition were measured one after the other.
    note
        Why there is no number, or what else a reader must know.
    """

    row: str
    what: str
    unit: str
    values: Sequence[float]
    peer: str = ""
    peers: Sequence[float] = ()
    goal: Goal | None = None
    note: str = ""
    samples: Sequence[tuple[float, float]] = field(default=(), repr=False)  # for a plot

    @property
    def value(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def ratio(self) -> float | None:
        """Median of the ratios of each repetition."""
        pairs = list(zip(self.values, self.peers, strict=False))
        return median(one / other for one, other in pairs) if pairs else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; `None` without a goal or without a number."""
        number = self.value if self.goal is None or self.goal.of == "value" else self.ratio
        if self.goal is None or number is None:
            return None
        return number >= self.goal.number if self.goal.bound == ">=" else number <= self.goal.number

    def as_json(self) -> dict[str, Any]:
        """All that is known of it."""
        told = asdict(self) | {"goal": str(self.goal) if self.goal else None}
        return told | {"value": self.value, "ratio": self.ratio, "reached": self.reached}
