"""A proxy in front of Tiled that loses, holds and breaks chosen requests, and keeps a record of all of them.

One thread per connection. A request is read whole, then matched against the faults; the first match decides.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

Kind = Literal["pass", "swallow_reply", "hold", "delay", "cut_request", "cut_reply", "answer"]
_SOCKET_LIMIT_S = 60.0
_POLL_S = 0.2
_REASONS = {
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@dataclass
class Exchange:
    """One request as the proxy saw it; `status` is the server's (or our own) answer, once there is one."""

    number: int
    method: str
    path: str
    body_bytes: int
    at_s: float
    status: int | None = None
    fault: Kind | None = None
    ended_s: float | None = None


@dataclass(eq=False)
class Fault:
    """What happens to the requests that match, from the `nth` match on, `times` times (None: always).

    What `stays` is not disarmed by `clear`.
    """

    kind: Kind
    method: str
    path: str
    nth: int = 1
    times: int | None = 1
    body: Callable[[bytes], bool] | None = None
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    seconds: float = 0.0
    bytes_max: int = 0
    status: int = 503
    page: bytes | None = None
    """What the answer holds instead of an explanation as Tiled would give it."""
    retry_after_s: int | None = None
    stays: bool = False
    hit: threading.Event = field(default_factory=threading.Event)
    """Set when a request matched."""
    released: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    """Set when the request's story ended: the server answered, or was not asked."""
    exchanges: list[Exchange] = field(default_factory=list)
    _seen: int = 0

    def release(self) -> None:
        """Let a held request go on to the server, whether or not its client is still there."""
        self.released.set()

    def takes(self, method: str, path: str, body: bytes) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.body is not None and not self.body(body):
            return False
        self._seen += 1
        return self._seen >= self.nth and (self.times is None or self._seen < self.nth + self.times)


@dataclass
class _Message:
    head: bytes
    body: bytes

    @property
    def first_line(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def raw(self) -> bytes:
        return self.head + self.body


class _GoneError(Exception):
    """The other side closed the connection, or the proxy stops."""


class FaultProxy:
    """A TCP proxy on a free port of 127.0.0.1 for one upstream port.

    Every fault method takes `method` and `path` as regular expressions (whole method, part of path and query)
    and `nth`, `times`, `body` (a predicate on the request's body), `before` (called before the request is
    forwarded) and `after` (called when the server has answered, before anything is returned): there one kills
    the service or Tiled.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._exchanges: list[Exchange] = []
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._started_s = time.monotonic()

    @property
    def uri(self) -> str:
        """The address of Tiled's API through the proxy."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests so far, in the order in which they arrived."""
        with self._lock:
            return list(self._exchanges)

    def add(self, fault: Fault) -> Fault:
        """Arm a fault; earlier ones come first."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm all faults, but those that stay, and release what they hold."""
        with self._lock:
            disarmed = [fault for fault in self._faults if not fault.stays]
            self._faults = [fault for fault in self._faults if fault.stays]
        for fault in disarmed:
            fault.release()

    def watch(self, method: str, path: str, **options: object) -> Fault:
        """Change nothing: only call `before` or `after`."""
        return self._new("pass", method, path, options)

    def swallow_reply(self, method: str, path: str, **options: object) -> Fault:
        """Let the server do the work, then reset the client's connection instead of answering."""
        return self._new("swallow_reply", method, path, options)

    def hold(self, method: str, path: str, **options: object) -> Fault:
        """Keep the request until `release()`, then deliver it, its client gone or not."""
        return self._new("hold", method, path, options)

    def delay(self, method: str, path: str, seconds: float, **options: object) -> Fault:
        """Forward the request only after so many seconds."""
        return self._new("delay", method, path, {"seconds": seconds, **options})

    def cut_request(self, method: str, path: str, bytes_max: int, **options: object) -> Fault:
        """Forward only that many bytes of the request, then close both connections."""
        return self._new("cut_request", method, path, {"bytes_max": bytes_max, **options})

    def cut_reply(self, method: str, path: str, bytes_max: int, **options: object) -> Fault:
        """Return only that many bytes of the reply, then reset the connection."""
        return self._new("cut_reply", method, path, {"bytes_max": bytes_max, **options})

    def answer(self, method: str, path: str, status: int, **options: object) -> Fault:
        """Answer with a status (and `retry_after_s`) without asking the server."""
        return self._new("answer", method, path, {"status": status, **options})

    def start(self) -> None:
        """Listen."""
        self._run(self._accept, "fault proxy")

    def stop(self) -> None:
        """Close every connection and end every thread; what is held is dropped."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _new(self, kind: Kind, method: str, path: str, options: dict[str, object]) -> Fault:
        return self.add(Fault(kind, method, path, **options))  # type: ignore[arg-type]

    def _run(self, target: Callable[..., None], name: str, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._run(self._serve, "fault proxy's connection", client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_POLL_S)
            connection = _Connection(client, self._upstream, self._stopping)
            with contextlib.suppress(_GoneError, OSError), connection:
                while self._one_exchange(connection):
                    pass

    def _one_exchange(self, connection: _Connection) -> bool:
        """Serve one request; returns whether the connection can be used again."""
        request = connection.read_request()
        exchange, fault = self._note(request)
        if fault is None:
            return self._finish(exchange, connection.forward(request), connection)
        fault.exchanges.append(exchange)
        fault.hit.set()
        try:
            return self._apply(fault, exchange, request, connection)
        finally:
            exchange.ended_s = self._now()
            fault.finished.set()

    def _note(self, request: _Message) -> tuple[Exchange, Fault | None]:
        method, path = request.first_line[0], request.first_line[1]
        with self._lock:
            exchange = Exchange(len(self._exchanges), method, path, len(request.body), self._now())
            self._exchanges.append(exchange)
            fault = next((fault for fault in self._faults if fault.takes(method, path, request.body)), None)
            exchange.fault = fault.kind if fault else None
        return exchange, fault

    def _apply(self, fault: Fault, exchange: Exchange, request: _Message, connection: _Connection) -> bool:
        if fault.before:
            fault.before()
        if fault.kind == "answer":
            exchange.status = fault.status
            connection.client.sendall(_own_answer(fault))
            return True
        if fault.kind == "cut_request":
            connection.send_upstream(request.raw[: fault.bytes_max])
            connection.reset()
            return False
        if fault.kind == "hold":
            self._wait(fault.released)
            connection.forget_upstream()  # the server may be another one by now
        elif fault.kind == "delay":
            self._stopping.wait(fault.seconds)
        reply = connection.forward(request)
        exchange.status = int(reply.first_line[1])
        if fault.after:
            fault.after()
        if fault.kind in {"swallow_reply", "cut_reply"}:
            connection.client.sendall(reply.raw[: fault.bytes_max])
            connection.reset()
            return False
        return self._finish(exchange, reply, connection)

    def _finish(self, exchange: Exchange, reply: _Message, connection: _Connection) -> bool:
        exchange.status = int(reply.first_line[1])
        exchange.ended_s = self._now()
        connection.client.sendall(reply.raw)
        return _header(reply.head, b"connection") != b"close"

    def _wait(self, event: threading.Event) -> None:
        while not event.wait(_POLL_S):
            if self._stopping.is_set():
                raise _GoneError

    def _now(self) -> float:
        return time.monotonic() - self._started_s


class _Connection:
    """A client's connection and the upstream one that belongs to it, made when it is needed."""

    def __init__(self, client: socket.socket, upstream: tuple[str, int], stopping: threading.Event) -> None:
        self.client = client
        self._address = upstream
        self._upstream: socket.socket | None = None
        self._stopping = stopping

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget_upstream()

    def read_request(self) -> _Message:
        """Wait for the next request, however long; idle connections end when the server closes its side."""
        while True:
            sockets = [self.client] + ([self._upstream] if self._upstream else [])
            readable, _, _ = select.select(sockets, [], [], _POLL_S)
            if self._upstream in readable or self._stopping.is_set():
                raise _GoneError
            if readable:
                return self._read(self.client, no_body=False)

    def forward(self, request: _Message) -> _Message:
        """Send the request to the server and return its whole reply."""
        upstream = self.send_upstream(request.raw)
        while True:
            reply = self._read(upstream, no_body=request.first_line[0] == "HEAD", reply=True)
            if not reply.first_line[1].startswith("1"):
                return reply

    def send_upstream(self, data: bytes) -> socket.socket:
        if self._upstream is None:
            self._upstream = socket.create_connection(self._address, timeout=_SOCKET_LIMIT_S)
            self._upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._upstream.sendall(data)
            self._upstream.settimeout(_POLL_S)
        else:
            self._upstream.settimeout(_SOCKET_LIMIT_S)
            self._upstream.sendall(data)
            self._upstream.settimeout(_POLL_S)
        return self._upstream

    def forget_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def reset(self) -> None:
        """Make the client see a reset, not an orderly end."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.forget_upstream()

    def _read(self, source: socket.socket, *, no_body: bool, reply: bool = False) -> _Message:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive(source)
        head, separator, rest = received.partition(b"\r\n\r\n")
        head += separator
        if no_body or (reply and head.split(b" ", 2)[1] in {b"204", b"304"}):
            return _Message(head, b"")
        return _Message(head, self._read_body(source, head, rest, until_end=reply))

    def _read_body(self, source: socket.socket, head: bytes, body: bytes, *, until_end: bool) -> bytes:
        length = _header(head, b"content-length")
        if _header(head, b"transfer-encoding") == b"chunked":
            while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
                body += self._receive(source)
        elif length is not None:
            parts, missing = [body], int(length) - len(body)
            while missing > 0:
                parts.append(self._receive(source))
                missing -= len(parts[-1])
            body = b"".join(parts)
        elif until_end:
            with contextlib.suppress(_GoneError):
                while True:
                    body += self._receive(source)
        return body

    def _receive(self, source: socket.socket) -> bytes:
        """Return the next bytes; only the proxy's end limits the wait, as with a real network."""
        while not self._stopping.is_set():
            try:
                data = source.recv(1 << 18)
            except TimeoutError:
                continue
            if data:
                return data
            break
        raise _GoneError


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().lower()
    return None


def _own_answer(fault: Fault) -> bytes:
    body = b'{"detail": "answered by the fault proxy"}' if fault.page is None else fault.page
    headers = [
        f"HTTP/1.1 {fault.status} {_REASONS.get(fault.status, 'Fault')}",
        f"content-type: {'application/json' if fault.page is None else 'text/html'}",
    ]
    if fault.retry_after_s is not None:
        headers.append(f"retry-after: {fault.retry_after_s}")
    headers.append(f"content-length: {len(body)}")
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + body
