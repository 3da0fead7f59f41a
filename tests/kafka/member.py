"""A `Source` with a notebook."""

import time
from collections.abc import Callable
from typing import Any

from tiled_ingest.core.effects import Assigned, EndReached, Input, Records
from tiled_ingest.core.record import Home, Record
from tiled_ingest.kafka.source import Source


class Member:
    """Polls a source and notes what came; `at_revoke` is run inside the callback."""

    def __init__(self, servers: str, group: str, topics: list[str], **arguments: Any) -> None:
        self.inputs: list[Input] = []
        self.revoked: list[Home] = []
        self.lost: list[Home] = []
        self.at_revoke: Callable[[tuple[Home, ...]], None] = lambda _: None
        self.auto_resume = arguments.pop("auto_resume", True)
        defaults: dict[str, Any] = {
            "properties": {},
            "start_latest": False,
            "instance_id": None,
            "nonce": lambda: "nonce",
        }
        self.source = Source(
            servers,
            group,
            topics,
            on_revoke=self._on_revoke,
            on_lost=self.lost.extend,
            **(defaults | arguments),
        )

    def _on_revoke(self, homes: tuple[Home, ...]) -> None:
        self.revoked.extend(homes)
        self.at_revoke(homes)

    @property
    def claims(self) -> dict[Home, Assigned]:
        return {it.home: it for it in self.inputs if isinstance(it, Assigned)}

    @property
    def records(self) -> list[Record]:
        return [record for it in self.inputs if isinstance(it, Records) for record in it.records]

    @property
    def ends(self) -> dict[Home, int]:
        return {it.home: it.next_offset for it in self.inputs if isinstance(it, EndReached)}

    @property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    def poll(self, records_max: int = 1_000, timeout_s: float = 0.05) -> list[Input]:
        found = self.source.poll(records_max, timeout_s)
        self.inputs += found
        if self.auto_resume:
            self.source.resume([it.home for it in found if isinstance(it, Assigned)])
        return found

    def poll_until(self, what: Callable[["Member"], Any], limit_s: float = 30.0) -> "Member":
        until_s = time.monotonic() + limit_s
        while not what(self):
            assert time.monotonic() < until_s, f"{self.inputs} {self.source.last_error}"
            self.poll()
        return self

    def poll_for(self, seconds: float) -> "Member":
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.poll()
        return self
