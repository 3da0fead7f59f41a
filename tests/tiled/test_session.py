"""What each way to fail is taken for; against a scripted server, so that every way can be had."""

import gzip
import io
import json
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiled.catalog import in_memory
from tiled.client import Context
from tiled.server.app import build_app

from tests.tiled.scripted import (
    Act,
    ScriptedServer,
    answer,
    answer_and_close_later,
    close,
    cut,
    hang,
    reset,
)
from tiled_ingest.core.errors import Forbidden
from tiled_ingest.core.writes import (
    Append,
    CreateContainer,
    CreateTable,
    Denied,
    Done,
    Exists,
    GetNode,
    Missing,
    Outcome,
    ReadKeys,
    Rejected,
    Unknown,
    Unprocessed,
    UpdateMetadata,
)
from tiled_ingest.demo.processes import free_port
from tiled_ingest.tiled import answers
from tiled_ingest.tiled.layout import perform
from tiled_ingest.tiled.session import Session

KEY = "5ec7e75ec7e7deadbeef"
AB = pa.schema({"a": pa.int64(), "b": pa.int64()})
NOT_TILEDS = "not Tiled's own words; is Tiled behind tiled.uri?"
WRITE = UpdateMetadata(("run",), {"stop": {}})


def outcome_of(*acts: Act, timeout_s: float = 5.0) -> Outcome:
    with ScriptedServer(*acts) as server:
        session = Session.at(server.uri, KEY, timeout_s=timeout_s)
        outcome = perform(session, WRITE)
        assert len(server.seen) == 1, "a request is sent once, whatever happens"
        session.close()
    return outcome


def detail(text: object) -> bytes:
    return json.dumps({"detail": text}).encode()


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (answer(200), Done()),
        (answer(404, detail("No such entry.")), Missing("404 No such entry.")),
        (answer(404, b"404 page not found"), Unknown(f"404: {NOT_TILEDS}", 404)),
        (answer(404, detail("Not Found")), Unknown(f"404 Not Found: {NOT_TILEDS}", 404)),
        (answer(400, b"<html>Bad Request</html>"), Unknown("400", 400)),
        (answer(409, detail("taken")), Exists()),
        (answer(401), Denied("401", 401)),
        (answer(403, detail("tag refused")), Denied("403 tag refused", 403)),
        (answer(400, detail("bad")), Rejected("400 bad", 400)),
        (answer(413, b"<html>too large</html>"), Rejected("413", 413)),
        (answer(408), Unknown("408", 408)),
        (answer(429), Unprocessed("429")),
        (answer(429, Retry_After="7"), Unprocessed("429", 7.0)),
        (answer(503, Retry_After="0.5"), Unprocessed("503", 0.5)),
        (answer(503, Retry_After="soon"), Unprocessed("503", None)),
        (answer(503, Retry_After="9" * 40), Unprocessed("503", answers.RETRY_AFTER_S_MAX)),
        (answer(503), Unknown("503", 503)),
        (answer(500, detail("Internal server error")), Unknown("500 Internal server error", 500)),
        (answer(502, b"<html>"), Unknown("502", 502)),
        (answer(504, b""), Unknown("504", 504)),
        (answer(500, detail("database is locked")), Unprocessed("500 database is locked")),
    ],
    ids=lambda it: "reply" if callable(it) else str(it),
)
def test_each_status_has_its_outcome(act: Act, expected: Outcome) -> None:
    assert outcome_of(act) == expected


def test_a_date_is_a_time_to_wait() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    outcome = outcome_of(answer(503, Retry_After=when))
    assert isinstance(outcome, Unprocessed)
    assert outcome.retry_after_s == pytest.approx(60, abs=3)
    assert answers.retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


def test_a_redirection_is_not_followed() -> None:
    outcome = outcome_of(answer(302, Location="/login"))
    assert isinstance(outcome, Denied)
    assert outcome.status == 302


def test_complaints_do_not_quote_what_was_sent() -> None:
    complaint = [{"loc": ["body", "id"], "msg": "too long", "input": "a whole document"}]
    assert outcome_of(answer(422, detail(complaint))) == Rejected("422 body.id: too long", 422)


def test_a_success_that_cannot_be_understood_confirms_nothing() -> None:
    with ScriptedServer(answer(200, b"<html>welcome</html>")) as server:
        session = Session.at(server.uri, KEY)
        assert isinstance(perform(session, GetNode(("run",))), Unknown)
        table = CreateTable(("run",), "internal", pa.schema({"x": pa.int64()}), {}, None, {})
        assert isinstance(perform(session, table), Unknown)
        session.close()


def arrow_file(rows: int) -> bytes:
    sink = io.BytesIO()
    keys = pa.table({"seq_num": np.arange(rows), "time": np.arange(rows) / 7})
    with pa.ipc.new_file(sink, keys.schema) as writer:
        writer.write_table(keys)
    return sink.getvalue()


@pytest.mark.parametrize("encode", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_keys_of_a_long_run_are_held_once(encode: Callable[[bytes], bytes]) -> None:
    body = encode(arrow_file(1_000_000))
    encoding = "Content-Encoding: gzip\r\n" if encode is gzip.compress else ""

    def act(sock: socket.socket) -> bool:
        sock.sendall(f"HTTP/1.1 200 OK\r\n{encoding}Content-Length: {len(body)}\r\n\r\n".encode())
        sock.sendall(body)
        return True

    with ScriptedServer(act) as server:
        session = Session.at(server.uri, KEY)
        session.server_info()
        tracemalloc.start()
        try:
            outcome = perform(session, ReadKeys(("run", "primary", "internal")))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        session.close()
    assert isinstance(outcome, Done)
    np.testing.assert_array_equal(outcome.value.seq_num, np.arange(1_000_000))
    np.testing.assert_array_equal(outcome.value.time, np.arange(1_000_000) / 7)
    assert peak < 1.5 * (outcome.value.seq_num.nbytes + outcome.value.time.nbytes)


# ---------------------------------------------------------------- no answer


@pytest.mark.parametrize("act", [hang, reset, cut, close], ids=["time-out", "reset", "cut", "closed"])
def test_without_an_answer_nothing_is_known(act: Act) -> None:
    outcome = outcome_of(act, timeout_s=0.5)
    assert isinstance(outcome, Unknown)
    assert outcome.status is None


def test_while_nobody_listens_nothing_was_sent() -> None:
    port = free_port()
    session = Session.at(f"http://127.0.0.1:{port}/api/v1", KEY)
    begin = time.monotonic()
    assert isinstance(perform(session, WRITE), Unprocessed)
    assert isinstance(perform(session, GetNode(())), Unprocessed)
    assert time.monotonic() - begin < 2, "no retries of its own"
    with ScriptedServer(port=port):
        assert perform(session, WRITE) == Done()
    assert isinstance(perform(session, WRITE), Unprocessed)
    session.close()


@pytest.mark.parametrize("about", ["hello", {"no": "version"}, [], None])
def test_what_is_not_tiled_is_waited_for(about: object) -> None:
    with ScriptedServer(about=about) as server:
        session = Session.at(server.uri, KEY)
        outcome = perform(session, WRITE)
        assert isinstance(outcome, Unprocessed)
        assert "not Tiled" in outcome.detail
        session.close()


# ---------------------------------------------------------------- connections


def test_after_a_server_error_the_connection_is_not_used_again() -> None:
    acts = [answer_and_close_later(500, body=body) for body in (b"", b"{}", b"x" * 200_000)]
    with ScriptedServer(*(act for failing in acts for act in (failing, answer()))) as server:
        session = Session.at(server.uri, KEY)
        for _ in acts:
            assert isinstance(perform(session, WRITE), Unknown)
            assert perform(session, WRITE) == Done()
        numbers = [seen.connection for seen in server.seen]
        session.close()
    assert all(failed != following for failed, following in zip(numbers[::2], numbers[1::2], strict=True))


def test_a_connection_is_kept_for_the_next_request_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiled_ingest.tiled.connect.KEEPALIVE_S_MAX", 0.3)
    with ScriptedServer() as server:
        session = Session.at(server.uri, KEY)
        perform(session, WRITE)
        perform(session, WRITE)
        time.sleep(0.5)
        perform(session, WRITE)
        first, second, third = (seen.connection for seen in server.seen)
        session.close()
    assert first == second != third


def test_threads_share_a_session() -> None:
    outcomes: list[Outcome] = []
    with ScriptedServer() as server:
        session = Session.at(server.uri, KEY)
        work = [
            threading.Thread(target=lambda: outcomes.extend(perform(session, WRITE) for _ in range(20)))
            for _ in range(8)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        session.close()
        assert len(server.seen) == 160
    assert outcomes == [Done()] * 160


# ---------------------------------------------------------------- secrets and addresses


def test_the_key_is_shown_to_tiled_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(answer(400, detail(f"Apikey {KEY} \x1b[31m is\nbad"))) as server:
        session = Session.at(f"{server.uri}?api_key={KEY}")
        outcome = perform(session, WRITE)
        assert server.seen[0].headers["authorization"] == f"Apikey {KEY}"
        assert KEY not in server.seen[0].path
        session.close()
    assert outcome == Rejected("400 Apikey *** [31m is bad", 400)
    assert KEY not in repr(session)
    assert KEY not in repr(vars(session)) + repr(vars(session._way))
    assert KEY not in caplog.text


def test_details_are_short() -> None:
    outcome = outcome_of(answer(400, detail("x" * 100_000)))
    assert isinstance(outcome, Rejected)
    assert len(outcome.detail) <= answers.DETAIL_CHARS_MAX


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("htps://host", KEY),
        ("host:8000", KEY),
        ("", KEY),
        ("http://", KEY),
        (f"http://user:{KEY}@host", None),
        ("http://host", f"{KEY}\nX-Other: 1"),
        ("http://host", f"é{KEY}"),
    ],
)
def test_what_can_never_work_is_refused_at_once(uri: str, key: str | None) -> None:
    with pytest.raises(Forbidden) as refusal:
        Session.at(uri, key)
    assert KEY not in str(refusal.value)


def test_a_key_from_a_file_may_end_with_a_newline() -> None:
    with ScriptedServer() as server:
        session = Session.at(server.uri, f"{KEY}\n")
        assert perform(session, WRITE) == Done()
        assert server.seen[0].headers["authorization"] == f"Apikey {KEY}"
        session.close()


# ---------------------------------------------------------------- the real one


@pytest.fixture
def session(tiled_server: Any) -> Iterator[Session]:
    session = Session.at(tiled_server.uri, tiled_server.api_key)
    yield session
    session.close()


@pytest.mark.real
@pytest.mark.parametrize("key", ["", "0123456789abcdef"], ids=["none", "wrong"])
def test_without_its_key_tiled_denies(tiled_server: Any, key: str) -> None:
    session = Session.at(tiled_server.uri, key)
    assert isinstance(perform(session, GetNode(())), Denied)
    assert isinstance(perform(session, CreateContainer((), "x", {}, (), None)), Denied)
    session.close()


@pytest.mark.real
def test_after_a_real_server_error_the_next_request_is_answered(session: Session) -> None:
    key = f"table-{time.time_ns()}"
    assert isinstance(perform(session, CreateTable((), key, AB, {}, None, {})), Done)
    wrong = pa.table({"b": [1], "a": [2]})
    for _ in range(10):
        refused = perform(session, Append((key,), wrong))
        assert isinstance(refused, Unknown)
        assert refused.status == 500
        assert isinstance(perform(session, GetNode((key,))), Done)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    """A Tiled in this process."""
    catalog = in_memory(named_memory=tmp_path.name, writable_storage=[f"duckdb:///{tmp_path / 'tables.duckdb'}"])
    with Context.from_app(build_app(catalog)) as context:
        yield context


@pytest.mark.real
def test_an_application_in_this_process_is_a_server_too(context: Any) -> None:
    session = Session.from_context(context)
    run = CreateContainer((), "run", {"start": {}}, (("BlueskyRun", "3.0"),), None)
    assert perform(session, run) == Done()
    assert perform(session, run) == Exists()
    assert isinstance(perform(session, GetNode(("nothing",))), Missing)
    table = CreateTable(("run",), "internal", AB, {}, None, {})
    assert isinstance(perform(session, table), Done)
    assert perform(session, Append(("run", "internal"), pa.table({"a": [1], "b": [2]}))) == Done()
    # Where a server answers 500, here the exception itself comes out of the HTTP client.
    outcome = perform(session, Append(("run", "internal"), pa.table({"b": [1], "a": [2]})))
    assert isinstance(outcome, Unknown)
    assert outcome.status == 500
