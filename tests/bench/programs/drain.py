"""Read a topic from its beginning to its end, and do nothing with it."""

from __future__ import annotations

import confluent_kafka as ck

from tests.bench.programs import Stopwatch, arguments, tell

AT_ONCE = 10_000


def main() -> None:
    given = arguments()
    consumer = ck.Consumer(
        {
            "bootstrap.servers": given["bootstrap_servers"],
            "group.id": "bench-drain",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([ck.TopicPartition(given["topic"], number, 0) for number in range(given["partitions"])])
    first = consumer.consume(1, 30)
    left = given["messages"] - len(first)
    watch = Stopwatch()
    watch.start()
    while left > 0:
        left -= len(consumer.consume(min(left, AT_ONCE), 10))
    watch.stop()
    consumer.close()
    tell(given, **watch.result)


main()
