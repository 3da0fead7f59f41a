"""`dlq redrive` with real parts: failed runs replaced, closed ones re-opened, refused ones made, each exactly once."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from tests.rig.reader import compare_run
from tests.system.publishing import Documents, by_run, interleaved, message, runs, uid_of
from tests.system.scene import Scene
from tests.tools.conftest import settings_of
from tests.tools.test_verify_topic import produce, small_run
from tiled_ingest.settings import Settings
from tiled_ingest.tools.dlq import Choice, Redriven, planned
from tiled_ingest.tools.progress import Silent
from tiled_ingest.tools.verify import Wanted, verify

pytestmark = pytest.mark.real

WAIT_S = 20.0


def redrive(settings: Settings, *, write: bool = True, **choice: Any) -> Redriven:
    with planned(settings, Choice(**choice)) as found:
        return found.write(Silent(), WAIT_S) if write else found.plan


def verdicts(redriven: Redriven) -> dict[str, str]:
    return {case.spooled.uid: case.verdict for case in redriven.cases}


def facts(scene: Scene, uid: str) -> Any:
    return scene.client[uid].metadata["tiled_ingest"]


def through(scene: Scene, **more: Any) -> None:
    """Let a service take all that is published, and end."""
    service = scene.service(**more).start()
    scene.settle(limit_s=240)
    assert service.stop() == 0


def failed_and_good(scene: Scene) -> tuple[Documents, Documents]:
    """Three runs, one of which Tiled refuses in the middle; the documents of all, and of that one."""
    documents = interleaved(runs())
    bad = by_run(documents)[uid_of(documents)]
    scene.publication(documents).publish()
    scene.proxy.answer("PATCH", f"table/partition/{uid_of(bad)}/primary", 422, nth=2, times=None)
    through(scene, batch__rows_max=20)
    scene.proxy.clear()
    assert scene.state(uid_of(bad)) == "failed"
    assert len(scene.client[uid_of(bad)]["primary"].base["internal"].read()) > 0, "some rows had been written"
    return documents, bad


def test_a_failed_run_is_replaced_and_a_repetition_changes_nothing(scene: Scene) -> None:
    documents, bad = failed_and_good(scene)
    settings = settings_of(scene)
    before = {uid: facts(scene, uid) for uid in by_run(documents)}

    done = redrive(settings)
    assert verdicts(done) == {uid_of(bad): "replace"}
    assert done.passed, done.built
    scene.compare(documents, "complete")
    after = facts(scene, uid_of(bad))
    assert after["source"] == before[uid_of(bad)]["source"]
    assert after["epoch"] > before[uid_of(bad)]["epoch"]
    assert "failing" not in after
    others = by_run(documents).keys() - {uid_of(bad)}
    assert {uid: facts(scene, uid) for uid in others} == {uid: before[uid] for uid in others}, "nobody else was touched"
    assert verify(settings, Wanted(), Silent()).passed

    scene.proxy.clear()
    seen = len(scene.proxy.exchanges)
    again = redrive(settings_of(scene, **{"tiled.uri": scene.proxy.uri}))
    assert verdicts(again) == {uid_of(bad): "done"}
    assert {each.method for each in scene.proxy.exchanges[seen:]} == {"GET"}
    assert facts(scene, uid_of(bad)) == after


def test_a_dry_run_writes_nothing(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    _, bad = failed_and_good(scene)
    before, letters, committed = dict(scene.client[uid_of(bad)].metadata), scene.letters(), scene.committed()
    seen = len(scene.proxy.exchanges)
    command = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "redrive", "--json", "--run", uid_of(bad)]
    for asked, status, said in (
        ("--dry-run", 0, ""),
        (None, 1, "tiled-ingest: nothing was written; to do it: --yes\n"),
    ):
        ran = subprocess.run(
            [*command, *options(scene, scene.proxy.uri), *([asked] if asked else [])],
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (status, said)
        assert [run["verdict"] for run in json.loads(ran.stdout)["runs"]] == ["replace"]
    methods = [each.method for each in scene.proxy.exchanges[seen:]]
    assert methods, "it did not even look"
    assert set(methods) == {"GET"}
    assert dict(scene.client[uid_of(bad)].metadata) == before
    assert (scene.letters(), scene.committed()) == (letters, committed)


def options(scene: Scene, uri: str) -> list[str]:
    values = {
        "beamline": "test",
        "kafka.bootstrap_servers": scene.broker.bootstrap_servers,
        "kafka.group_id": scene.group,
        "kafka.topics": scene.topic,
        "tiled.uri": uri,
        "tiled.api_key": scene.tiled.api_key,
    }
    return [option for name, value in values.items() for option in ("--set", f"{name}={value}")]


class Told(Silent):
    """What the person would see."""

    def __init__(self) -> None:
        self.expected: list[int] = []
        self.steps: list[tuple[int, str]] = []

    def expect(self, documents: int) -> None:
        self.expected.append(documents)

    def advance(self, offsets: int, doing: str) -> None:
        self.steps.append((offsets, doing))


def test_it_says_how_far_it_is(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    large = [small_run([1, 2], comment="x" * 3000), small_run([3], comment="x" * 3000)]
    produce(scene, [*large[0], *large[1]])
    through(scene, limits__message_bytes_max=2000)
    told = Told()
    with planned(settings_of(scene), Choice()) as found:
        done = found.write(told, WAIT_S)
    assert done.passed, done.built
    assert told.expected == [sum(map(len, large))], "all that will be written, told once"
    each = Counter[str]()
    for documents, doing in told.steps:
        each[doing] += documents
    assert each == {f"run {uid_of(run)[:8]}": len(run) for run in large}


def test_at_a_terminal_a_bar_says_it(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2], comment="x" * 3000)
    produce(scene, documents)
    through(scene, limits__message_bytes_max=2000)
    command = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "redrive", "--yes", "--all"]
    shown, terminal = pty.openpty()
    try:
        ran = subprocess.run(
            [*command, *options(scene, scene.tiled.uri)], stderr=terminal, stdout=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}, timeout=120, check=False,
        )  # fmt: skip
        os.set_blocking(shown, False)
        said = os.read(shown, 65_536).decode()
    finally:
        os.close(terminal)
        os.close(shown)
    assert ran.returncode == 0
    assert f"run {uid_of(documents)[:8]}" in said
    assert f"{len(documents)}/{len(documents)}" in said
    assert "\x1b[" not in ran.stdout.decode(), "what it prints is for pipes"


@pytest.mark.parametrize(
    ("where", "state", "verdict"),
    [
        ("PATCH table", "failed", "replace"),
        ("PUT data_source", "failed", "replace"),  # between the two of a switch
        ("PATCH metadata", "complete", "done"),  # the first marks the run, the second ends it
    ],
)
def test_killed_half_way_and_repeated_it_makes_the_run_whole(
    scene: Scene, where: str, state: str, verdict: str
) -> None:
    documents, bad = failed_and_good(scene)
    method, _, path = where.partition(" ")
    command = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "redrive", "--yes", "--all"]
    started: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        os.kill(started[0].pid, signal.SIGKILL)

    fault = scene.proxy.watch(method, f"{path}.*{uid_of(bad)}", nth=2, after=kill)
    started.append(subprocess.Popen([*command, *options(scene, scene.proxy.uri)]))
    assert started[0].wait(120) == -signal.SIGKILL, "it was not killed where it should"
    assert fault.exchanges
    assert scene.state(uid_of(bad)) == state, "half of it must not pass for the whole"

    scene.proxy.clear()
    done = redrive(settings_of(scene))
    assert verdicts(done) == {uid_of(bad): verdict}
    assert done.passed, done.built
    scene.compare(documents, "complete")


def test_refused_again_a_run_stays_what_it_was(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents, bad = failed_and_good(scene)
    letters = len(scene.letters())
    scene.proxy.answer("PATCH", "table/partition/", 422, times=None)
    refused = redrive(settings_of(scene, **{"tiled.uri": scene.proxy.uri}))
    assert not refused.passed
    assert refused.built[uid_of(bad)].error
    assert scene.state(uid_of(bad)) == "failed"
    assert len(scene.letters()) == letters
    scene.proxy.clear()
    assert redrive(settings_of(scene)).passed
    scene.compare(documents, "complete")


def call(scene: Scene, *arguments: str, uri: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command, at no terminal."""
    changes = [option for name, value in more.items() for option in ("--set", f"{name.replace('__', '.')}={value}")]
    whole = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "redrive", "--yes", *arguments]
    return subprocess.run(
        [*whole, *options(scene, uri or scene.tiled.uri), *changes],
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_what_is_refused_again_is_named_each_time_until_its_cause_is_mended(duckdb_scene: Scene) -> None:
    """The run is there without one event: as often as it is redriven, that is said, until the limit is raised."""
    scene = duckdb_scene
    documents = small_run(["a", "x" * 3000, "b"], dtype="string")
    produce(scene, documents)
    through(scene, limits__message_bytes_max=2000)
    letters, uid = scene.letters(), uid_of(documents)
    assert [letter.code for letter in letters] == ["too_large"]
    for _ in range(2):
        again = call(scene, "--all", limits__message_bytes_max="2000")
        assert (again.returncode, again.stderr) == (1, "")
        assert f"reopen   {uid}" in again.stdout
        assert "still refused: 1 too_large" in again.stdout
        assert f"{scene.topic}:0:3  unreadable {documents[3][1]['uid']}: too_large: " in again.stdout
        told = json.loads(call(scene, "--all", "--json", limits__message_bytes_max="2000").stdout)["runs"][0]
        assert [(each["position"], each["code"]) for each in told["refusals"]] == [([scene.topic, 0, 3], "too_large")]
    assert scene.letters() == letters
    mended = call(scene, "--all")
    assert (mended.returncode, mended.stderr) == (0, "")
    scene.compare(documents, "complete")
    assert f"done     {uid}" in call(scene, "--all").stdout


def test_a_run_that_tiled_refuses_again_is_named_with_all_its_documents(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    _, bad = failed_and_good(scene)
    letters = len(scene.letters())
    scene.proxy.answer("PATCH", "table/partition/", 422, times=None)
    for _ in range(2):
        again = call(scene, "--run", uid_of(bad), uri=scene.proxy.uri)
        assert (again.returncode, again.stderr) == (1, "")
        assert f"replace  {uid_of(bad)}" in again.stdout
        assert "-> not written: " in again.stdout
        assert f"still refused: {len(bad)} run_failed" in again.stdout
        assert "422" in again.stdout, "Tiled's reason"
    assert len(scene.letters()) == letters
    scene.proxy.clear()
    assert call(scene, "--run", uid_of(bad)).returncode == 0


def test_letters_with_absurd_headers_do_not_keep_the_others(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2], comment="x" * 3000)
    produce(scene, documents)
    through(scene, limits__message_bytes_max=2000)
    place = {"topic": scene.topic, "partition": "0", "offset": "3", "timestamp_ms": "1764000000000", "code": "late"}
    send_letter(scene, documents[4], {**place, "offset": "9" * 40})
    send_letter(scene, documents[4], {**place, "partition": "-1", "run": "a\x1b[2Jb"})
    send_letter(scene, documents[4], {**place, "offset": "9000", "run": "../\x00" * 99})
    send_letter(scene, documents[4], {**place, "topic": "no topic's name!"})
    dry, wet = call(scene, "--all", "--dry-run"), call(scene, "--all")
    for ran in (dry, wet):
        assert (ran.returncode, ran.stderr) == (1, "")
        assert f"create   {uid_of(documents)}" in ran.stdout
        assert f"offset makes no sense: '{'9' * 40}'" in ran.stdout
        assert "run a\\x1b[2Jb: partition makes no sense: '-1'" in ran.stdout
        assert "no run can be called so in Tiled" in ran.stdout
        assert "topic makes no sense" in ran.stdout
        assert all(character.isprintable() or character == "\n" for character in ran.stdout)
    scene.compare(documents, "complete")


def test_letters_without_a_run_are_named_and_what_is_not_there_too(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1])
    produce(scene, [("event", {**documents[2][1], "uid": "lonely", "descriptor": "nobody"})])
    scene.produce(b"no msgpack")
    through(scene)
    ran = call(scene, "--all")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert f"{scene.topic}:0:0 (orphan)  event lonely of descriptor nobody: nothing here says" in ran.stdout
    assert f"{scene.topic}:0:1 (undecodable)  unreadable: " in ran.stdout
    absent = call(scene, "--run", "nobody", "--dry-run")
    assert (absent.returncode, absent.stdout) == (1, "absent   run nobody: no dead letter\nruns: none\n")
    assert "absent   code orhpan: no dead letter" in call(scene, "--code", "orhpan", "--code", "orphan").stdout
    assert call(scene, "--all", "--code", "orphan").returncode == 2


@contextmanager
def heeded(sent: signal.Signals) -> Iterator[None]:
    """Let what is started heed a signal, though we may not: shells let background jobs ignore SIGINT."""
    before = signal.signal(sent, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(sent, before)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_cut_short_it_says_what_was_done(duckdb_scene: Scene, how: signal.Signals, tmp_path: Path) -> None:
    scene = duckdb_scene
    large = [small_run([1, 2], comment="x" * 3000), small_run([3], comment="x" * 3000)]
    produce(scene, [*large[0], *large[1]])
    through(scene, limits__message_bytes_max=2000)
    started: list[subprocess.Popen[str]] = []
    scene.proxy.watch("POST", f"metadata/{uid_of(large[1])}", after=lambda: started[0].send_signal(how))
    command = [sys.executable, "-m", "tiled_ingest.cli", "dlq", "redrive", "--yes", "--all"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    whole = [*command, *options(scene, scene.proxy.uri)]
    with heeded(how):
        started.append(subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=environment))
    said, _ = started[0].communicate(timeout=120)
    assert started[0].returncode == 1
    assert "-> complete, 2 rows" in said
    assert said.count("-> not finished: to go on, repeat the command") == 1
    assert list(tmp_path.glob("tiled-ingest-*")) == [], "no document is left behind"
    scene.proxy.clear()
    assert call(scene, "--all").returncode == 0
    scene.compare([*large[0], *large[1]], "complete")


def test_mixed_codes(scene: Scene) -> None:
    """A closed run gets the rows that came late, a refused one is made, and what cannot be helped is said."""
    late, large, broken = small_run([1, 2, 3]), small_run([4, 5], comment="x" * 3000), small_run([6, 7])
    conflicting = [("start", {**late[0][1], "sample": "another"})]
    early, stop, tail = late[:4], late[-1], late[4:-1]
    produce(scene, [*early, *conflicting, stop, *tail, *large, *broken[:1], *broken[2:]])
    scene.produce(b"no msgpack")
    through(scene, limits__message_bytes_max=2000)
    codes = sorted(letter.code for letter in scene.letters())
    assert codes == ["conflicting_run", "late", *6 * ["orphan"], "too_large", "undecodable"]
    assert uid_of(large) not in scene.client

    settings = settings_of(scene)
    assert verdicts(redrive(settings, write=False, codes=frozenset({"too_large"}))) == {uid_of(large): "create"}
    only = redrive(settings, runs=frozenset({uid_of(large)}))
    assert only.passed, only.built
    done = redrive(settings)
    assert verdicts(done)[uid_of(late)] == "reopen"
    assert verdicts(done)[uid_of(large)] == "done"
    assert dict(done.without_run) == {"undecodable": 1, "orphan": 2}, "its descriptor never came"
    assert not done.passed
    assert compare_run(scene.client, uid_of(late), late) == []
    assert compare_run(scene.client, uid_of(large), large) == []
    assert scene.state(uid_of(large)) == "complete"
    again = redrive(settings)
    assert verdicts(again)[uid_of(late)] == "done", "the other start is in the log for ever"


def test_a_run_that_the_service_has_in_hand_is_left_alone(duckdb_scene: Scene) -> None:
    scene = duckdb_scene
    documents = small_run([1, 2, 3])
    produce(scene, [*documents[:4], ("event", {**documents[4][1], "descriptor": "nobody"})])
    settings = settings_of(scene)
    service = scene.service().start()
    scene.settle()
    letter_of(scene, documents[4], uid_of(documents), offset=4)
    assert verdicts(redrive(settings, runs=frozenset({uid_of(documents)}))) == {uid_of(documents): "wait"}
    produce(scene, documents[4:])
    scene.settle()
    done = redrive(settings, runs=frozenset({uid_of(documents)}))
    assert done.passed, done.built
    # The service is there, knows the run as one that is over, and takes the next one.
    more = small_run([8])
    produce(scene, [documents[3], *more])
    scene.settle()
    scene.compare(more, "complete")
    scene.compare(documents, "complete")
    assert service.stop() == 0


def letter_of(scene: Scene, document: Any, run: str, offset: int) -> None:
    """A dead letter of the run, as an older service might have left it."""
    said = {"code": "late", "run": run, "topic": scene.topic, "partition": "0", "offset": str(offset)}
    send_letter(scene, document, {**said, "timestamp_ms": str(int(time.time() * 1000))})


def send_letter(scene: Scene, document: Any, said: dict[str, str]) -> None:
    """A dead letter with these headers."""
    producer = ck.Producer({"bootstrap.servers": scene.broker.bootstrap_servers})
    headers: list[Any] = [(f"tiled_ingest.{key}", value.encode()) for key, value in said.items()]
    producer.produce(f"{scene.group}.dead-letters", message(*document), b"session", headers=headers)
    assert producer.flush(20) == 0
