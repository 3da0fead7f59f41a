"""A network link that can be cut: bytes pass, or every connection is reset, or nothing passes and nobody is told.

It knows nothing of what passes, so it serves for Kafka as for HTTP. Two threads per connection.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

_POLL_S = 0.1
_CONNECT_LIMIT_S = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the other side sees a reset, not an orderly end


class Link:
    """A TCP link from a free port of 127.0.0.1 to one upstream port.

    Attributes
    ----------
    met
        How many connections have met a cut, or pieces of data a stall.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self.met = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, name=f"link {self.port}", daemon=True)

    def cut(self) -> None:
        """Reset every connection, and every new one, until `heal`."""
        self._refusing = True
        self._reset_all()

    def stall(self) -> None:
        """Let nothing pass until `heal`; connections stay, and what was sent arrives afterwards."""
        self._passing.clear()

    def heal(self) -> None:
        """Let everything pass again. Harmless to repeat."""
        self._refusing = False
        self._passing.set()

    def __enter__(self) -> Link:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._passing.set()
        self._reset_all()
        self._acceptor.join(10 * _POLL_S + _CONNECT_LIMIT_S)
        self._listener.close()

    def _reset_all(self) -> None:
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            self._count()
            _reset(connection)

    def _count(self) -> None:
        with self._lock:
            self.met += 1

    def _accept(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._join_ends(client)

    def _join_ends(self, client: socket.socket) -> None:
        if self._refusing:
            self._count()
            _reset(client)
            return
        try:
            server = socket.create_connection(self._upstream, timeout=_CONNECT_LIMIT_S)
        except OSError:  # nobody listens there: its client is told so
            _reset(client)
            return
        with self._lock:
            self._open |= {client, server}
        for source, sink in ((client, server), (server, client)):
            with contextlib.suppress(OSError):  # reset meanwhile
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                source.settimeout(None)
            threading.Thread(target=self._pass, args=(source, sink), name="link", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        """Hand on what comes, until either side ends."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._passing.is_set():
                    self._count()
                    self._passing.wait()
                sink.sendall(data)
        self._end(source, sink)

    def _end(self, source: socket.socket, sink: socket.socket) -> None:
        """Hand on an orderly end, unless both were reset; close the pair when both directions have ended."""
        with self._lock, contextlib.suppress(OSError):
            is_first, is_reset = source in self._open, not {source, sink} & self._open
            self._open.discard(sink)
            if not is_reset:
                sink.shutdown(socket.SHUT_WR)
        if not is_first and not is_reset:  # who resets closes: an earlier close would make a silence of it
            source.close()
            sink.close()


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RD)  # wakes who waits in `recv`
    connection.close()
