"""Alerts made to fire by their causes, and ended as their runbooks say; those of an outage are in `test_monitoring`."""

from __future__ import annotations

import time
from functools import partial

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from tests.deploy.live import PARTITIONS, Live, rules
from tests.system.publishing import Publication, key_for, runs
from tests.system.service import Service
from tiled_ingest.settings import load
from tiled_ingest.tools.check import check

FIRE_S_MAX = 90.0
VISITS = 3
CALM = frozenset(
    {"TiledIngestDeadLetter", "TiledIngestOffsetGap", "TiledIngestRebalanceStorm"}
)  # they last for minutes


def fires(live: Live, alert: str) -> None:
    live.prometheus.wait_until(lambda: f"TiledIngest{alert}" in live.prometheus.alerts(), f"{alert} fires", FIRE_S_MAX)


def ends(live: Live, alert: str) -> None:
    live.prometheus.wait_until(
        lambda: f"TiledIngest{alert}" not in live.prometheus.alerts(), f"{alert} ends", FIRE_S_MAX
    )


def test_a_run_that_stays_open(live: Live) -> None:
    ends(live, "RunStuckOpen")  # on a slow machine a run of an earlier test may have been open for long
    documents = runs(1)[0]
    publication = Publication(live.broker.bootstrap_servers, live.topic, documents, key_for(1, PARTITIONS))
    publication.publish(len(documents) - 1)
    fires(live, "RunStuckOpen")
    # Where the runbook has one look:
    assert [shown["uid"] for shown in live.service.status()["runs"]] == [documents[0][1]["uid"]]
    publication.publish()
    ends(live, "RunStuckOpen")


def test_a_service_without_a_partition(live: Live) -> None:
    assert live.service.stop() == 0
    live.service.settings["kafka.topics"] = ["no.such.topic"]
    live.service.start()
    fires(live, "Unassigned")
    failed = [each for each in check(load(environ=live.service.environment)) if each.verdict == "failed"]
    assert [each.name for each in failed] == ["topic no.such.topic"]
    assert live.service.lines("kafka_error")
    assert live.service.stop() == 0
    live.service.settings["kafka.topics"] = [live.topic]
    live.service.start_claimed()
    ends(live, "Unassigned")


def test_a_service_that_is_gone_while_retention_deletes_what_it_has_not_read(live: Live) -> None:
    live.service.kill()
    fires(live, "Absent")
    lost = live.publish(count=1, partition=2).published
    place = ck.TopicPartition(live.topic, 2, ck.OFFSET_END)
    admin = AdminClient({"bootstrap.servers": live.broker.bootstrap_servers})
    admin.delete_records([place])[place].result(20)
    assert live.service.start().ended(60) == 1
    (stopped,) = live.service.lines("stopped")  # the last line, with the reason of the runbook's table
    assert stopped["reason"] == "OffsetOutOfRange"
    assert live.topic in stopped["error"]
    live.service.start("--accept-gap").wait_for("claimed")
    ends(live, "Absent")
    fires(live, "OffsetGap")
    assert live.service.metric("tiled_ingest_offset_gap_messages_total") == len(lost)
    assert live.prometheus.alerts()["TiledIngestOffsetGap"]["topic"] == live.topic


def test_a_service_that_ends_again_and_again(live: Live) -> None:
    until_s = time.monotonic() + 2 * FIRE_S_MAX
    while "TiledIngestRestarting" not in live.prometheus.alerts():
        assert time.monotonic() < until_s, "Restarting does not fire"
        live.service.kill()
        live.service.start().wait_for("started")
        seen = f"process_start_time_seconds > {time.time() - 30}"
        live.prometheus.wait_until(partial(live.prometheus.query, seen), "it is scraped")
        time.sleep(1)
    live.service.wait_for("claimed")
    ends(live, "Restarting")


def test_members_that_come_and_go(live: Live) -> None:
    settings = {name: value for name, value in live.service.settings.items() if not name.startswith("http.")}
    del settings["kafka.instance_id"]
    guest = Service(live.service.folder, settings, "guest")
    before = live.service.metric("tiled_ingest_rebalances_total")
    try:
        for _ in range(VISITS):
            guest.start_claimed()
            assert guest.stop() == 0
        fires(live, "RebalanceStorm")
    finally:
        guest.kill()
    # Once for each rebalance, not for each of the partitions: to come makes two, to go one.
    assert live.service.metric("tiled_ingest_rebalances_total") - before <= 3 * VISITS


def test_every_alert_was_fired_for_real(live: Live) -> None:
    """By these tests and those of `test_monitoring` together."""
    fired = live.prometheus.query('count by (alertname) (last_over_time(ALERTS{alertstate="firing"}[1h]))')
    missing = {rule["alert"] for rule in rules()} - {each["metric"]["alertname"] for each in fired}
    assert missing == set()


def test_all_is_quiet_again(live: Live) -> None:
    """Nothing else was set off, and what was has ended: but for what looks minutes back."""
    live.publish()
    live.prometheus.wait_until(lambda: live.prometheus.alerts().keys() <= CALM, "quiet", FIRE_S_MAX)
    live.prometheus.wait_until(lambda: set(live.lag().values()) == {0}, "everything committed")
