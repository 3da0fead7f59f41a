"""Is the service alive, is it ready: what the loop reports, and the small HTTP server that tells it.

For probes, for Prometheus, and for a person who looks.
"""

import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Thread
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .snapshot import Snapshot

SILENT_S_MAX = 10.0  # a large append takes seconds; `tiled.timeout_s` may be minutes


class Health:
    """The loop's last heartbeat and last snapshot. One thread writes, others read: each is one reference.

    Parameters
    ----------
    stalled_s_max
        The loop counts as dead when its last heartbeat is older.
    clock
        Monotonic time in seconds, the same that `beat` is given.
    """

    def __init__(self, stalled_s_max: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stalled_s_max, self._clock = stalled_s_max, clock
        self._beaten = self._moved = clock()
        self.snapshot = Snapshot()

    def beat(self, now: float) -> None:
        """Note that the loop made progress, or had nothing to do. A loop that only turns does not beat, but moves."""
        self._beaten = self._moved = now

    def move(self, now: float) -> None:
        """Note that the loop came out of a call, whether or not it made progress."""
        self._moved = now

    @property
    def still_s(self) -> float:
        """For how many seconds the loop has not moved."""
        return self._clock() - self._moved

    def update(self, snapshot: Snapshot) -> None:
        """Note how the service stands."""
        self.snapshot = snapshot

    def not_live(self) -> list[str]:
        """Return why the process should be restarted, if it should. Kafka and Tiled play no part."""
        silent_s = self._clock() - self._beaten
        if silent_s <= self._stalled_s_max:
            return []
        return [f"the loop made no progress for {silent_s:.0f} s (limit {self._stalled_s_max:g} s)"]

    def not_ready(self) -> list[str]:
        """Return why the service does not do its work now; empty if it does."""
        snapshot = self.snapshot
        reasons = {
            "no partition is assigned": not snapshot.assigned_partitions,
            # Once partitions are ours, it is about one broker of several, or over.
            f"Kafka's client says: {snapshot.kafka_error}": bool(snapshot.kafka_error)
            and not snapshot.assigned_partitions,
            "Tiled cannot be reached": not snapshot.tiled_reachable,
            f"Tiled has not answered for {snapshot.tiled_silent_s:.0f} s": snapshot.tiled_silent_s > SILENT_S_MAX,
            "a dead letter was not confirmed": not snapshot.dead_letters_ok,
            "the service is stopping": bool(snapshot.stopping) and not snapshot.stopped,
            f"nothing is read any more: {snapshot.stopped}": bool(snapshot.stopped),
        }
        return [reason for reason, true in reasons.items() if true]


# ---------------------------------------------------------------- over HTTP

_PAGE = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
# The page's one script is allowed by its hash: whatever a message smuggles into the page, it is not run.
_SCRIPT = b64encode(sha256(_PAGE.partition("<script>")[2].partition("</script>")[0].encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_SCRIPT}'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one path answers."""

    status: HTTPStatus
    kind: str
    body: bytes


class HealthServer:
    """Serves until `close`, from threads of its own.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes any free one (see `port`).
    registry
        What `/metrics` shows.
    health
        What the other paths show.

    Raises
    ------
    OSError
        The address cannot be used.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        self._registry, self._health = registry, health
        self._paths: Mapping[str, Callable[[], Answer]] = {
            "/livez": lambda: _probe(health.not_live()),
            "/readyz": lambda: _probe(health.not_ready()),
            "/metrics": lambda: Answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)),
            "/status": lambda: _json(HTTPStatus.OK, self._status()),
            "/": lambda: Answer(HTTPStatus.OK, "text/html; charset=utf-8", _PAGE.encode()),
        }
        self._server = _Server((host, port), self._paths)
        Thread(target=self._server.serve_forever, name="http", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving; returns when the port is free again."""
        self._server.shutdown()
        self._server.server_close()

    def _status(self) -> dict[str, object]:
        return {
            "now": time.time(),
            "live": not self._health.not_live(),
            "not_ready": self._health.not_ready(),
            **asdict(self._health.snapshot),
        }


def _probe(reasons: list[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return _json(status, {"ok": not reasons, "reasons": reasons})


def _json(status: HTTPStatus, content: Mapping[str, object]) -> Answer:
    return Answer(status, "application/json", json.dumps(content).encode() + b"\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a slow reader must not hold up the service's end
    block_on_close = False

    def __init__(self, address: tuple[str, int], paths: Mapping[str, Callable[[], Answer]]) -> None:
        self.paths = paths
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; repeats nothing of what it was asked."""

    server: _Server
    timeout = 10  # seconds: who opens a connection and says nothing is cut off

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        made = self.server.paths.get(path, lambda: _plain(HTTPStatus.NOT_FOUND))
        self._send(made(), with_body=with_body)

    def _send(self, answer: Answer, *, with_body: bool) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the library refuses, without its own page, which quotes the request."""
        del message, explain
        unknown_method = code == HTTPStatus.NOT_IMPLEMENTED
        self.close_connection = True
        self._send(_plain(HTTPStatus.METHOD_NOT_ALLOWED if unknown_method else HTTPStatus(code)), with_body=True)

    def version_string(self) -> str:
        """Name no version to strangers."""
        return "tiled-ingest"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Write nothing: probes ask every few seconds, and a request's text is a stranger's."""


def _plain(status: HTTPStatus) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{status.value} {status.phrase}\n".encode())
