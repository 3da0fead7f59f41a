"""Alerts and dashboard: by promtool, and by a real Prometheus that scrapes the real service while documents flow."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
import yaml

from tests.deploy.live import ALERTS, API_KEY, CONFIG, PARTITIONS, Live, rules
from tests.deploy.tools import CHART, ROOT, program, run, status_of

RULE_TESTS = Path(__file__).with_name("alerts.test.yaml")
# An alert, what stands in it, and what would be wrong: each must fail the rules' tests.
MUTANTS = (
    ("Restarting", "max by (namespace, beamline)", "sum by (namespace, beamline)"),
    ("Restarting", "process_start_time_seconds[1h]", "process_start_time_seconds[4h]"),
    ("Stalled", "sum by (namespace, beamline, topic) (\n  max", "max by (namespace, beamline, topic) (\n  max"),
    ("BacklogOld", "max by", "min by"),
    ("RetentionRisk", "max by", "sum by"),
    ("OffsetGap", "> 0\n  unless", "> 3\n  unless"),
    ("DeadLetter", "> 0\n  unless", "< 0\n  unless"),
    ("Retrying", "max by", "sum by"),
    ("RebalanceStorm", "for: 5m", "for: 0m"),
    ("RunStuckOpen", "for: 1h", "for: 0m"),
    ("BudgetBurn", "[1h]", "[4h]"),
    ("BudgetBurn", "for: 2m", "for: 10m"),
)
DASHBOARD = CHART / "files" / "dashboard.json"
PARTS = ("What it means", "What to look at", "What to do", "It is over when", "What was tried")
RUNBOOKS = ROOT / "docs" / "runbooks"


def panels() -> dict[str, list[str]]:
    """Return the queries of every panel of the dashboard."""
    content = json.loads(DASHBOARD.read_text())
    return {
        panel["title"] + f" ({panel['id']})": [target["expr"] for target in panel["targets"]]
        for panel in content["panels"]
        if panel["type"] != "row"
    }


# ---------------------------------------------------------------- on paper


def test_promtool_takes_rules_and_configuration(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    run([promtool, "check", "rules", ALERTS])
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.read_text().replace("/etc/prometheus/rules/alerts.yaml", str(ALERTS)))
    run([promtool, "check", "config", config])


def test_every_alert_fires_and_is_quiet_as_it_should() -> None:
    run([program("promtool", "prometheus"), "test", "rules", RULE_TESTS])
    text = RULE_TESTS.read_text()
    tested = {rule["alert"] for rule in rules() if re.search(rf"{rule['alert']}\b", text)}
    by_pattern = {"TiledIngestBacklogOld"} if "(BacklogOld|" in text else set()
    assert tested | by_pattern == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize(("alert", "is_now", "becomes"), MUTANTS)
def test_the_tests_find_an_alert_that_is_wrong(tmp_path: Path, alert: str, is_now: str, becomes: str) -> None:
    tests = [each for each in yaml.safe_load(RULE_TESTS.read_text())["tests"] if alert in json.dumps(each)]
    named = [rule for rule in rules() if rule["alert"].removeprefix("TiledIngest") in json.dumps(tests)]
    assert status_of(_promtool(tmp_path / "right", tests, named)) == 0
    rule = next(each for each in named if each["alert"] == f"TiledIngest{alert}")
    part = "expr" if is_now in rule["expr"] else "for"
    before = rule["expr"] if part == "expr" else f"for: {rule['for']}"
    assert is_now in before
    rule[part] = before.replace(is_now, becomes, 1).removeprefix("for: ")
    assert status_of(_promtool(tmp_path / "wrong", tests, named)) == 1


def _promtool(folder: Path, tests: Sequence[Any], tested: Sequence[Any]) -> list[str]:
    """Return the command that tests these rules only, which is quick."""
    folder.mkdir()
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "tested", "rules": [*tested]}]}))
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [*tests]}
    (folder / "tests.yaml").write_text(yaml.safe_dump(content))
    return [program("promtool", "prometheus"), "test", "rules", str(folder / "tests.yaml")]


def test_every_alert_has_its_runbook() -> None:
    for rule in rules():
        page = RUNBOOKS / rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert page.stem == rule["alert"]
        text = page.read_text()
        assert [f"## {part}" in text for part in PARTS] == [True] * len(PARTS), page
    assert {path.stem for path in RUNBOOKS.glob("Tiled*.md")} == {rule["alert"] for rule in rules()}


def test_only_promised_metrics_are_asked_for(live: Live) -> None:
    """Chart and dashboard ask for nothing that the service does not have."""
    text = ALERTS.read_text() + DASHBOARD.read_text()
    asked = set(re.findall(r"\b(tiled_ingest_[a-z_]+|process_[a-z_]+)\b", text))
    live.service.wait_until(lambda: "consumer_lag_messages{" in live.service.get("/metrics")[1], "the first look")
    served = {re.split(r"[{ ]", line)[0] for line in live.service.get("/metrics")[1].splitlines() if line[0] != "#"}
    assert asked - served == set()
    assert len(asked) > 20


def test_panels_do_not_overlap() -> None:
    boxes = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [(box["x"] + x, box["y"] + y) for box in boxes for x in range(box["w"]) for y in range(box["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


# ---------------------------------------------------------------- for real


def test_silent_partitions_have_a_lag_too(live: Live) -> None:
    """Documents go to one partition of three; all three are watched."""
    published = live.publish()
    live.prometheus.wait_until(lambda: live.lag() == {"0": 0, "1": 0, "2": 0}, "a lag of zero everywhere")
    committed = f'tiled_ingest_offsets_committed_total{{topic="{live.topic}"}} == {len(published.published)}'
    live.prometheus.wait_until(lambda: live.prometheus.query(committed), "all that was published is committed")


def test_counters_count_what_was_published(live: Live) -> None:
    before = live.written()
    published = live.publish(partition=1).published
    # The service counts a page as the events that are in it.
    pages = [len(doc["seq_num"]) for name, doc in published if name == "event_page"]
    expected = before + Counter(name for name, _ in published if name != "event_page") + Counter(event=sum(pages))
    live.service.wait_until(lambda: live.written()["stop"] == expected["stop"], "every run is closed")
    assert live.written() == expected
    # The service level is one of documents: the histogram counts each of them, and only them.
    assert live.service.metric("tiled_ingest_end_to_end_latency_seconds_count") == expected.total()


def test_garbage_wakes_somebody(live: Live) -> None:
    producer = ck.Producer({"bootstrap.servers": live.broker.bootstrap_servers})
    producer.produce(live.topic, b"\xff no document", b"key", 2)
    assert producer.flush(20) == 0
    live.prometheus.wait_until(lambda: "TiledIngestDeadLetter" in live.prometheus.alerts(), "DeadLetter fires")
    labels = live.prometheus.alerts()["TiledIngestDeadLetter"]
    assert (labels["beamline"], labels["reason"]) == ("live", "InvalidDocument")


def test_a_tiled_that_is_away_wakes_somebody_and_all_is_quiet_after(live: Live) -> None:
    quiet = {"TiledIngestStalled", "TiledIngestRetrying", "TiledIngestAbsent", "TiledIngestUnassigned",
             "TiledIngestBacklogOld", "TiledIngestRetentionRisk"}  # fmt: skip
    live.prometheus.wait_until(lambda: not quiet & live.prometheus.alerts().keys(), "quiet before")
    live.tiled.kill()
    live.publish()
    loud = {"TiledIngestStalled", "TiledIngestRetrying", "TiledIngestBacklogOld", "TiledIngestRetentionRisk"}
    live.prometheus.wait_until(lambda: loud <= live.prometheus.alerts().keys(), "all fire", 90)
    assert live.prometheus.alerts()["TiledIngestStalled"]["topic"] == live.topic
    assert live.prometheus.query("tiled_ingest_oldest_unsettled_age_seconds > 3")
    # What comes in is seen while nothing can be settled.
    incoming, settled, *_ = next(queries for title, queries in panels().items() if title.startswith("Documents in"))
    live.prometheus.wait_until(lambda: value_of(live, settled) == 0, "nothing was settled for a while", 90)
    live.publish()
    live.prometheus.wait_until(lambda: value_of(live, incoming) > 0, "documents in")
    assert value_of(live, settled) == 0
    live.tiled.restart()
    live.prometheus.wait_until(lambda: "TiledIngestBudgetBurn" in live.prometheus.alerts(), "what came late", 90)
    live.prometheus.wait_until(lambda: not quiet & live.prometheus.alerts().keys(), "quiet after", 90)
    live.prometheus.wait_until(lambda: set(live.lag().values()) == {0}, "everything committed")
    assert not live.prometheus.query("tiled_ingest_oldest_unsettled_age_seconds > 0")


def test_every_panel_shows_data(live: Live) -> None:
    live.publish()
    time.sleep(3)  # a rate needs two scrapes
    empty = [
        (title, query)
        for title, queries in panels().items()
        for query in queries
        if not [each for each in live.prometheus.query(_with_variables(query)) if each["value"][1] != "NaN"]
    ]
    assert empty == []


def value_of(live: Live, query: str) -> float:
    """The one value that a panel's query has now."""
    return float(live.prometheus.query(_with_variables(query))[0]["value"][1])


def _with_variables(query: str) -> str:
    for name, value in (("namespace", ".*"), ("beamline", "live"), ("topic", ".*"), ("__rate_interval", "30s")):
        query = query.replace(f"${name}", value)
    assert "$" not in query
    return query


def test_the_page_has_what_it_shows(live: Live) -> None:
    """Runs and letters of the tests before this one, and every partition."""
    live.service.wait_until(lambda: not live.service.status()["open_runs"], "every run is closed")
    status = live.service.status()
    assert {each["partition"] for each in status["partitions"]} == set(range(PARTITIONS))
    assert {each["state"] for each in status["closed"]} == {"complete"}
    assert [each["code"] for each in status["letters"]] == ["undecodable"]
    assert status["open_runs"] == len(status["runs"]) == 0


def test_the_key_is_nowhere(live: Live) -> None:
    """A secret that came from a file is in no log line, no metric and no page."""
    pages = [live.service.get(path)[1] for path in ("/", "/status", "/metrics", "/livez", "/readyz")]
    assert all(pages)
    assert [API_KEY in text for text in [*pages, live.service.text()]] == [False] * 6
