"""The HTTP side, over a real socket."""

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256

import pytest
from prometheus_client import CollectorRegistry

from tiled_ingest.observe.health import Health, HealthServer
from tiled_ingest.observe.metrics import Metrics
from tiled_ingest.observe.snapshot import Snapshot


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(10.0, clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    Metrics(registry, "sim", "1")
    running = HealthServer("127.0.0.1", 0, registry, health)
    yield running
    running.close()


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def test_alive_while_the_loop_beats(server: HealthServer, health: Health, clock: Clock) -> None:
    clock.now = 9.0
    assert ask(server, "/livez")[0].status == 200
    clock.now = 12.0
    response, body = ask(server, "/livez")
    assert response.status == 503
    assert "no progress for 12 s (limit 10 s)" in json.loads(body)["reasons"][0]
    health.beat(11.0)
    assert ask(server, "/livez")[0].status == 200


@pytest.mark.parametrize(
    ("snapshot", "reasons"),
    [
        (Snapshot(assigned_partitions=1), []),
        (Snapshot(), ["no partition is assigned"]),
        (Snapshot(kafka_error="no topic"), ["no partition is assigned", "Kafka's client says: no topic"]),
        (Snapshot(assigned_partitions=1, kafka_error="one broker of three is away"), []),
        (Snapshot(assigned_partitions=1, tiled_reachable=False), ["Tiled cannot be reached"]),
        (Snapshot(assigned_partitions=1, tiled_silent_s=9.0), []),
        (Snapshot(assigned_partitions=1, tiled_silent_s=12.4), ["Tiled has not answered for 12 s"]),
        (Snapshot(assigned_partitions=1, dead_letters_ok=False), ["a dead letter was not confirmed"]),
        (Snapshot(assigned_partitions=1, stopping="SIGTERM"), ["the service is stopping"]),
        (
            Snapshot(assigned_partitions=1, stopping="over", stopped="BreakerOpen: 9 of 9"),
            ["nothing is read any more: BreakerOpen: 9 of 9"],
        ),
    ],
)
def test_ready(server: HealthServer, health: Health, snapshot: Snapshot, reasons: list[str]) -> None:
    health.update(snapshot)
    response, body = ask(server, "/readyz")
    assert response.status == (503 if reasons else 200)
    assert json.loads(body) == {"ok": not reasons, "reasons": reasons}


def test_neither_kafka_nor_tiled_kills_the_process(server: HealthServer, health: Health) -> None:
    health.update(Snapshot(tiled_reachable=False))
    assert ask(server, "/livez")[0].status == 200


def test_metrics_and_status(server: HealthServer, health: Health) -> None:
    health.update(Snapshot(assigned_partitions=3, lag={"t[0]": 5}))
    response, body = ask(server, "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "tiled_ingest_build_info" in body
    status = json.loads(ask(server, "/status?x=1")[1])
    assert (status["assigned_partitions"], status["lag"], status["live"]) == (3, {"t[0]": 5}, True)


def test_the_page_holds_nothing_of_messages(server: HealthServer, health: Health) -> None:
    """It asks for `/status` and shows it as text; `tests/deploy/test_page.py` looks at it in a browser."""
    health.update(Snapshot(stopping="</pre><script>alert(1)</script>"))
    response, body = ask(server, "/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "alert(1)" not in body
    assert "innerHTML" not in body


def test_the_page_may_run_its_own_script_alone(server: HealthServer) -> None:
    response, body = ask(server, "/")
    script = body.partition("<script>")[2].partition("</script>")[0].encode()
    policy = response.headers["Content-Security-Policy"]
    assert f"script-src 'sha256-{b64encode(sha256(script).digest()).decode()}';" in policy
    assert "default-src 'none'" in policy
    assert body.count("<script") == 1


@pytest.mark.parametrize("path", ["/nope", "/livez/", "/../etc/passwd", "/<script>"])
def test_other_paths_are_not_found(server: HealthServer, path: str) -> None:
    response, body = ask(server, path)
    assert (response.status, body) == (404, "404 Not Found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_not_allowed(server: HealthServer, method: str) -> None:
    response, _ = ask(server, "/livez", method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_head_sends_no_body(server: HealthServer) -> None:
    response, body = ask(server, "/livez", "HEAD")
    assert (response.status, body) == (200, "")
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/", "/nope", "/metrics"])
def test_security_headers(server: HealthServer, path: str) -> None:
    headers = ask(server, path)[0].headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Server"] == "tiled-ingest"


def test_no_port_is_held_after_close(health: Health) -> None:
    first = HealthServer("127.0.0.1", 0, CollectorRegistry(), health)
    port = first.port
    first.close()
    HealthServer("127.0.0.1", port, CollectorRegistry(), health).close()
