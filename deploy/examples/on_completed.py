"""Start an analysis on each run that is complete in Tiled: `python -m deploy.examples.on_completed --help`.

Listens to the topic of completed runs (`kafka.completed_topic`). Announcements come at least once, so who acts on them
asks whether the run was analysed before; here that is remembered in memory, at a beamline where the results are kept.
An offset is committed only after the analysis: whoever crashes does it again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException
from tiled.client import from_uri


def analyse(run: Any) -> dict[str, dict[str, float]]:
    """Return the mean of each column of numbers, by stream. Yours is more interesting."""
    means: dict[str, dict[str, float]] = {}
    for name in run:
        if "internal" in run[name].base:
            table = run[name].base["internal"].read().select_dtypes("number")
            means[name] = {str(column): float(mean) for column, mean in table.mean().items()}
    return means


def announcements(consumer: Consumer, topic: str) -> Iterator[dict[str, Any]]:
    """Yield announcements for ever; each is committed when the next is asked for."""
    consumer.subscribe([topic])
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        yield json.loads(message.value())
        consumer.commit(message, asynchronous=False)


def properties(path: Path | None) -> dict[str, str]:
    """Return librdkafka's properties, `name=value` a line: what a broker with a login and TLS wants to know."""
    lines = path.read_text().splitlines() if path else []
    given = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in given}


def main(arguments: list[str]) -> int:
    """Analyse until Ctrl-C, or a number of runs."""
    parser = argparse.ArgumentParser(prog="python -m deploy.examples.on_completed", description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument(
        "--properties", type=Path, help="a file of the client's properties (sasl.password=...), mode 0600"
    )
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="analysis")
    parser.add_argument("--tiled", required=True, help="the service's tiled.uri; the key comes from TILED_API_KEY")
    parser.add_argument("--runs", type=int, default=0, help="end after so many")
    options = parser.parse_args(arguments)
    client = from_uri(options.tiled)
    settings = {"bootstrap.servers": options.bootstrap_servers, "group.id": options.group}
    consumer = Consumer(
        {**properties(options.properties), **settings, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    seen: set[str] = set()
    for announced in announcements(consumer, options.topic):
        if announced["state"] == "complete" and announced["uid"] not in seen:
            result = analyse(client[tuple(announced["path"])])
            sys.stdout.write(json.dumps({"uid": announced["uid"], "means": result}) + "\n")
            sys.stdout.flush()
        seen.add(announced["uid"])
        if len(seen) == options.runs:
            break
    consumer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
