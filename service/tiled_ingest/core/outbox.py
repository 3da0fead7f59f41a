"""What one step of the engine hands out: effects in their order, tickets for those that are answered, and words."""

from collections import Counter
from typing import Any

from .effects import Effect, Tell


class Outbox:
    """Collects the effects of a step.

    Attributes
    ----------
    now_s
        The time of the step.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._effects: list[Effect] = []
        self._tickets = 0
        self._counts: Counter[tuple[str, str]] = Counter()

    def ticket(self) -> int:
        """A number that no other effect has."""
        self._tickets += 1
        return self._tickets

    def put(self, effect: Effect) -> None:
        """Hand out an effect, after those that were put before."""
        self._effects.append(effect)

    def tell(self, event: str, **fields: Any) -> None:
        """Let the operators know. `since_s`, when something began, becomes how many `seconds` it took."""
        if "since_s" in fields:
            fields["seconds"] = round(self.now_s - fields.pop("since_s"), 3)
        self.put(Tell(event, fields))

    def count(self, kind: str, result: str, number: int = 1) -> None:
        """Count settled documents; told once for each step."""
        self._counts[kind, result] += number

    def take(self) -> list[Effect]:
        """All that was put since the last time."""
        for (kind, result), number in self._counts.items():
            self.tell("documents", name=kind, result=result, count=number)
        self._counts.clear()
        effects, self._effects = self._effects, []
        return effects
