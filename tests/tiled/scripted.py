"""A tiny HTTP server that says who Tiled would be, and else does what a test tells it, down to the socket."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

Act = Callable[[socket.socket], bool]  # says whether the connection stays open

ABOUT = {
    "api_version": 0,
    "library_version": "0.2.20",
    "formats": {},
    "aliases": {},
    "queries": [],
    "authentication": {"required": True, "providers": [], "links": None},
    "links": {"self": "", "documentation": ""},
    "meta": {},
}


@dataclass(frozen=True)
class Seen:
    connection: int
    method: str
    path: str
    headers: dict[str, str]


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Act:
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines.update({name.replace("_", "-"): value for name, value in headers.items()})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def act(sock: socket.socket) -> bool:
        sock.sendall(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body)
        return True

    return act


def answer_and_close_later(status: int, later_s: float = 0.05, body: bytes = b"{}") -> Act:
    """As uvicorn does after an exception: nothing in the answer tells that the connection will be closed."""

    def act(sock: socket.socket) -> bool:
        answer(status, body)(sock)
        time.sleep(later_s)
        return False

    return act


def hang(sock: socket.socket) -> bool:
    sock.settimeout(20)
    sock.recv(1)  # until the client gives up
    return False


def reset(sock: socket.socket) -> bool:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def cut(sock: socket.socket) -> bool:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    return False


def close(sock: socket.socket) -> bool:
    return False


class ScriptedServer:
    """Performs its acts one per request, the last one for ever; requests for its name are answered beside that."""

    def __init__(self, *acts: Act, about: object = ABOUT, port: int = 0) -> None:
        self.acts = deque(acts or (answer(),))
        self.seen: list[Seen] = []
        self._about = answer(body=json.dumps(about).encode())
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/v1"

    def __enter__(self) -> "ScriptedServer":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock, len(self._open)), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock:
            try:
                while self._one(sock, number):
                    pass
            except OSError:
                return

    def _one(self, sock: socket.socket, number: int) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            received = sock.recv(65536)
            if not received:
                return False
            data += received
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += sock.recv(65536)
        method, path, _ = first.split(" ")
        if path.partition("?")[0].rstrip("/") in ("/api/v1", ""):
            return self._about(sock)
        with self._lock:
            self.seen.append(Seen(number, method, path, headers))
            act = self.acts[0] if len(self.acts) == 1 else self.acts.popleft()
        return act(sock)
