"""A Tiled client that looks at tables again and again, and notes when it sees each row first."""

from __future__ import annotations

import time

import httpx
import numpy as np
import pyarrow as pa

from tests.bench.programs import api_key, arguments, tell

ARROW_FILE = "application/vnd.apache.arrow.file"
REST_S = 0.02


def main() -> None:
    given = arguments()
    seen = dict.fromkeys(given["paths"], 0.0)  # the newest time among the rows seen
    counts = dict.fromkeys(given["paths"], 0)
    latencies: list[float] = []
    until_s = time.monotonic() + given["limit_s"]
    headers = {"Authorization": f"Apikey {api_key()}", "Accept": ARROW_FILE}
    with httpx.Client(base_url=given["base_url"], headers=headers, timeout=60) as http:
        while min(counts.values()) < given["rows"]:
            if time.monotonic() > until_s:
                raise SystemExit(f"not all rows could be read: {counts}")
            for path in given["paths"]:
                times = _times(http, path)
                now = time.time()
                latencies += (now - times[times > seen[path]]).tolist()
                seen[path], counts[path] = max(seen[path], times.max(initial=0.0)), len(times)
            time.sleep(REST_S)
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    tell(given, p50=p50, p99=p99, rows=len(latencies))


def _times(http: httpx.Client, path: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The times of all rows; none while the table is not there."""
    answer = http.get(f"/table/partition/{path}", params={"partition": 0, "column": ["time"]})
    if answer.status_code == 404:
        return np.empty(0)
    answer.raise_for_status()
    with pa.ipc.open_file(pa.py_buffer(answer.content)) as file:
        return np.asarray(file.read_all()["time"])


main()
