"""Documents written by hand, as databases hold them: one run, its uids filled in."""

from __future__ import annotations

import uuid
from typing import Any

from .recorder import Documents

TIME = 1_500_000_000.0


def new_uid() -> str:
    return str(uuid.uuid4())


class Composer:
    """Composes one run; `documents` is what was composed so far."""

    def __init__(self, **start: Any) -> None:
        self.uid = new_uid()
        self.documents: Documents = [("start", {"uid": self.uid, "time": TIME, "scan_id": 1, **start})]
        self._descriptors: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str, **doc: Any) -> dict[str, Any]:
        self.documents.append((kind, doc))
        return doc

    def descriptor(self, data_keys: dict[str, Any], name: str = "primary", **more: Any) -> str:
        uid = self._descriptors[name] = new_uid()
        self.add("descriptor", uid=uid, run_start=self.uid, time=TIME + 1, name=name, data_keys=data_keys, **more)
        return uid

    def event(self, data: dict[str, Any], name: str = "primary", **more: Any) -> dict[str, Any]:
        number = self._counts[name] = self._counts.get(name, 0) + 1
        time = TIME + 2 + number / 8
        head = {"uid": new_uid(), "descriptor": self._descriptors[name], "seq_num": number, "time": time}
        return self.add("event", **{**head, "data": data, "timestamps": dict.fromkeys(data, time), **more})

    def stop(self, **more: Any) -> Documents:
        stop = {"exit_status": "success", "reason": "", "num_events": dict(self._counts), **more}
        self.add("stop", uid=new_uid(), run_start=self.uid, time=TIME + 100, **stop)
        return self.documents


def key(dtype: str = "number", shape: list[int | None] | None = None, **more: Any) -> dict[str, Any]:
    """One data key."""
    return {"dtype": dtype, "shape": shape or [], "source": "PV:test", **more}
