"""The link does to connections what its name says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.rig.link import Link


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that returns what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        with Link(server.getsockname()[1]) as made:
            yield made
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_return_all, args=(connection,), daemon=True).start()


def _return_all(connection: socket.socket) -> None:
    with closing(connection), suppress(ConnectionError):
        while data := connection.recv(100):
            connection.sendall(data)


def _connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=30)


def _echoed(link: Link, sent: bytes) -> bytes:
    with _connect(link) as client:
        client.sendall(sent)
        return client.recv(100)


def test_it_hands_on_what_comes_and_the_end(link: Link) -> None:
    with _connect(link) as client:
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_a_cut_resets_what_is_open_and_what_comes_until_it_is_healed(link: Link) -> None:
    with _connect(link) as client:
        client.sendall(b"one")
        assert client.recv(100) == b"one"
        link.cut()
        with pytest.raises(ConnectionError):
            client.recv(100)
        met = link.met
        assert met > 0
    with pytest.raises(ConnectionError):
        _echoed(link, b"two")
    assert link.met > met
    link.heal()
    met = link.met
    assert _echoed(link, b"three") == b"three"
    assert link.met == met


def test_what_was_sent_during_a_stall_arrives_afterwards(link: Link) -> None:
    with _connect(link) as client:
        link.stall()
        assert link.met == 0
        client.settimeout(0.3)
        client.sendall(b"one")
        with pytest.raises(TimeoutError):
            client.recv(100)
        assert link.met == 1
        link.heal()
        client.settimeout(5)
        assert client.recv(100) == b"one"
