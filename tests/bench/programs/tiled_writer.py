"""What one runs without us: bluesky-kafka's consumer, and TiledWriter subscribed to it."""

from __future__ import annotations

from typing import Any

from bluesky_kafka import RemoteDispatcher
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from tests.bench.programs import Stopwatch, api_key, arguments, tell

POLL_S = 0.01


class Counted:
    """Hands documents on until there were enough stops, or events: then it ends the run itself."""

    def __init__(self, writer: Any, events: int, stops: int) -> None:
        self._writer, self._events, self._stops = writer, events, stops
        self._run = ""
        self.watch = Stopwatch()
        self.done = False

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if not self._run:
            self.watch.start()
        if name == "start":
            self._run = doc["uid"]
        try:
            self._hand_on(name, doc)
        except BaseException:  # the consumer would log it, and go on
            self.done = True
            raise

    def _hand_on(self, name: str, doc: dict[str, Any]) -> None:
        self._writer(name, doc)
        self._events -= name == "event"
        self._stops -= name == "stop"
        if self._stops == 1 and not self._events and name == "event":
            stop = {"uid": f"{self._run}-stop", "run_start": self._run, "time": 2e9, "exit_status": "success"}
            self._writer("stop", stop)
            self._stops = 0
        if not self._stops:
            self.watch.stop()
            self.done = True

    def go_on(self) -> bool:
        return not self.done


def main() -> None:
    given = arguments()
    writer = TiledWriter(from_uri(given["uri"], api_key=api_key()), batch_size=given["batch"])
    counted = Counted(writer, given["events"], given["stops"])
    dispatcher = RemoteDispatcher(
        [given["topic"]],
        given["bootstrap_servers"],
        given["group"],
        consumer_config={"auto.offset.reset": "earliest"},
        polling_duration=POLL_S,
    )
    dispatcher.subscribe(counted)
    dispatcher.start(continue_polling=counted.go_on)
    if not counted.watch.result:
        raise SystemExit("TiledWriter failed: see above")
    tell(given, **counted.watch.result)


main()
