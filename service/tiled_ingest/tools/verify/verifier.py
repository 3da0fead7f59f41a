"""The whole of it: dead letters first, then partition by partition, each run compared when it has ended."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from tiled_ingest.core.record import Home
from tiled_ingest.settings import Settings
from tiled_ingest.tiled.session import Session
from tiled_ingest.tools.letters import Torn, read_letters
from tiled_ingest.tools.log import messages

from .compare import compare_run
from .expected import VALUE_MISFIT, Partition, Run
from .metadata import shown
from .report import SENTENCES_MAX, PartitionReport, Report, RunReport, StreamReport
from .spans import Log, Span, Wanted
from .tree import Path, Tree

Facts = Mapping[str, Any]
Letters = dict[int, dict[int, str]]  # by offset: codes, by the hash of the value


class Watch(Protocol):
    """Hears how far it is."""

    def expect(self, documents: int) -> None:
        """So many offsets will be read in all."""

    def advance(self, offsets: int, doing: str) -> None:
        """So many more were read."""


def verify(settings: Settings, wanted: Wanted, watch: Watch) -> Report:
    """Compare; writes nothing anywhere.

    Raises
    ------
    NothingToRead
        What is wanted does not exist.
    IngestError
        Kafka or Tiled cannot be read: nothing can be said.
    """
    began_s = time.monotonic()
    with _session(settings) as session:
        tiled = settings.tiled
        tree = Tree(session, deep=bool(tiled.routes), files_moved=bool(getattr(tiled, "patches", ())))
        report = Verifier(settings, wanted, tree, watch).verify()
    report.seconds = round(time.monotonic() - began_s, 3)
    return report


@contextmanager
def _session(settings: Settings) -> Iterator[Session]:
    tiled = settings.tiled
    session = Session.at(tiled.uri, tiled.key, timeout_s=max(tiled.timeout_s, 60.0))
    try:
        yield session
    finally:
        session.close()


class Verifier:
    """What all partitions share."""

    def __init__(self, settings: Settings, wanted: Wanted, tree: Tree, watch: Watch) -> None:
        self.settings = settings
        self.wanted = wanted
        self.tree = tree
        self.watch = watch
        self.log = Log(settings.kafka)
        self.report = Report()
        self.letters: dict[Home, Letters] = {}
        self.torn: list[Torn] = []
        self.places: dict[str, list[tuple[Path, Facts]]] = {}  # of runs in Tiled, by uid

    def verify(self) -> Report:
        """Compare everything that is wanted."""
        spans = self.log.spans(self.wanted)
        self._read_letters()
        self._find_runs(spans)
        spans = [self._narrowed(span) for span in spans] if self.wanted.runs else spans
        self.watch.expect(sum(span.stop - span.start for span in spans))
        for span in spans:
            PartitionVerifier(self, span).verify()
        self._miss_runs()
        return self.report

    def _read_letters(self) -> None:
        for letter in read_letters(self.settings.kafka, self.torn):
            codes = self.letters.setdefault(letter.home, {}).setdefault(letter.offset, {})
            # A document may be there for one value first, and wholly later: then it need not be in Tiled.
            if codes.get(hash(letter.value), VALUE_MISFIT) == VALUE_MISFIT:
                codes[hash(letter.value)] = letter.code

    def _find_runs(self, spans: list[Span]) -> None:
        if self.wanted.runs:
            for uid in self.wanted.runs:
                self.places[uid] = self.find(uid)
            return
        for topic in {span.home.topic for span in spans}:
            for path, facts in self.tree.runs_of(topic):
                self.places.setdefault(path[-1], []).append((path, facts))

    def find(self, uid: str) -> list[tuple[Path, Facts]]:
        """Return the places of a run, whoever wrote it, with our own facts about it."""
        nodes = [node for path in self.tree.named(uid) if (node := self.tree.node(path))]
        return [(node.path, _mapping(node.metadata.get("tiled_ingest"))) for node in nodes]

    def _narrowed(self, span: Span) -> Span:
        """Return the part of a span in which the wanted runs are, as far as Tiled knows where they begin."""
        sources = [_mapping(facts.get("source")) for uid in self.wanted.runs for _, facts in self.places[uid]]
        if not all(self.places[uid] for uid in self.wanted.runs) or not all(_is_known(source) for source in sources):
            return span
        if any(_is_of(source, span) and source.get("topic_id", span.topic_id) != span.topic_id for source in sources):
            return span  # their offsets are those of an earlier topic of this name
        firsts = [source["first_offset"] for source in sources if _is_of(source, span)]
        return span.within(min(firsts), span.stop) if firsts else span.within(span.stop, span.stop)

    def _miss_runs(self) -> None:
        """Say which of the wanted runs the topic does not hold."""
        seen = {run.uid for run in self.report.runs}
        for uid in sorted(self.wanted.runs - seen):
            self.report.not_in_topic.append(f"run {shown(uid)}: its start is not in the range")


class PartitionVerifier:
    """One partition: read to its end, its runs compared as they end."""

    def __init__(self, whole: Verifier, span: Span) -> None:
        self._whole = whole
        self._span = span
        self._partition = Partition(whole.wanted.runs, whole=span.start == 0)
        self._letters = whole.letters.get(span.home, {})
        self._report = PartitionReport(*span.home, span.start, span.stop, span.low, span.high, committed=span.committed)
        self._grows = False

    def verify(self) -> None:
        """Read, compare, report."""
        if self._whole.wanted.committed and self._span.committed < 0:
            self._report.remarks.append("the group has committed nothing here: nothing is compared")
        self._read()
        self._grows = self._span.stop < self._whole.log.high(self._span.home)
        for run in list(self._partition.runs.values()):
            self._compare(run)
        self._say_cut()
        self._say_torn()
        self._say_surplus()
        self._say_unaccounted()
        self._report.events = self._partition.events
        self._whole.report.dead_letters += self._letters_counted()
        self._whole.report.partitions.append(self._report)

    def _letters_counted(self) -> Counter[str]:
        """Count the dead letters by code: of the wanted runs, if only some are wanted."""
        if not self._whole.wanted.runs:
            return self._partition.letters
        return sum((run.letters for run in self._partition.runs.values()), Counter())

    def _read(self) -> None:
        span = self._span
        at = span.start
        for found in messages(self._whole.settings.kafka, span.home, span.start, span.stop):
            self._partition.take_all(found, self._letters, self._code)
            self._report.documents += len(found)
            self._whole.watch.advance(found[-1].offset() + 1 - at, str(span.home))
            at = found[-1].offset() + 1
            self._make_room()
        self._whole.watch.advance(span.stop - at, str(span.home))

    def _code(self, message: Any) -> str | None:
        """Return the code of the record's dead letter, if that holds the same bytes: offsets begin anew in a topic
        that is created anew.
        """
        return self._letters[message.offset()].get(hash(message.value()))

    def _make_room(self) -> None:
        """Compare runs that have ended while too much is held."""
        while run := self._partition.oldest():
            self._compare(run)

    # ------------------------------------------------------------ runs

    def _compare(self, run: Run) -> None:
        if run.compared:
            self._say_late(run)
            return
        report = RunReport(run.uid, *self._span.home, run.first_offset, dead_letters=dict(run.letters))
        self._whole.report.runs.append(report)
        places = self._whole.places.get(run.uid) or self._whole.find(run.uid)
        if run.written == 0 and not any(_is_of(_mapping(facts.get("source")), self._span) for _, facts in places):
            report.verdict = "dead letters"
        elif not places:
            self._missing(run, report)
        else:
            self._compare_at(run, report, places)
        report.repeated += run.repeated + sum(_repeated(stream) for stream in run.streams.values())
        run.release()

    def _compare_at(self, run: Run, report: RunReport, places: list[tuple[Path, Facts]]) -> None:
        if len(places) > 1:
            report.differences.append("Tiled holds it in several places: " + ", ".join(map(_where, places)))
        open_end = self._grows or self._span.stop < self._span.high
        compare_run(self._whole.tree, self._partition, run, places[0][0], report, open_end=open_end)
        if not report.is_same:
            report.verdict = "different"
        elif report.verdict == "same" and open_end and run.stop is None:
            report.verdict = "cut"

    @staticmethod
    def _missing(run: Run, report: RunReport) -> None:
        report.verdict = "missing"
        report.differences.append("the run is not in Tiled")
        for stream in run.streams.values():
            stream.rows.flush()
            kept, optional, _ = stream.rows.kept()
            said = StreamReport(stream.name)
            said.counts.expected = said.counts.missing = int((kept & ~optional).sum())
            said.counts.dead_letters = int((kept & optional).sum())
            report.streams.append(said)

    def _say_late(self, run: Run) -> None:
        report = next(each for each in self._whole.report.runs if each.uid == run.uid)
        report.repeated = max(report.repeated, run.repeated)
        if run.late:
            report.verdict = "different"
            report.differences.append(f"{run.late} documents came long after its stop, and are not in the dead letters")

    # ------------------------------------------------------------ what belongs to no run

    def _say_cut(self) -> None:
        runs, documents = 0, 0
        if self._partition.nameless:
            self._report.remarks.append(
                f"{self._partition.nameless} documents cannot be read and name no run: not judged with --run"
            )
        for (by, name), count in self._partition.cut.items():
            documents += count
            runs += by == "run"
            if by == "run" and not self._whole.places.get(name) and not self._whole.find(name):
                self._report.differences.append(f"run {shown(name)} began before the range, and is not in Tiled")
        if documents and not self._whole.wanted.runs:
            self._report.remarks.append(
                f"{documents} documents are of runs that began before the range: not compared ({runs} runs named)"
            )

    def _say_torn(self) -> None:
        """Name dead letters that are not whole: they account for nothing."""
        mine = [each for each in self._whole.torn if each.letter.home == self._span.home]
        said = [f"the dead letter of offset {each.letter.offset} is incomplete: {each.why}" for each in mine]
        self._report.remarks += said[:SENTENCES_MAX]

    def _say_surplus(self) -> None:
        """Say which runs Tiled has from this part of the topic that the topic does not hold."""
        if self._whole.wanted.runs:
            return
        before: Counter[str] = Counter()
        for uid, places in self._whole.places.items():
            for path, facts in places:
                source = _mapping(facts.get("source"))
                if uid in self._partition.runs or not _is_of(source, self._span):
                    continue
                kind = self._why_absent(source)
                if kind:
                    before[kind] += 1
                else:
                    self._whole.report.not_in_topic.append(f"{'/'.join(path)} (offset {source.get('first_offset')})")
        self._report.remarks += [f"{count} runs in Tiled {kind}" for kind, count in before.items()]

    def _why_absent(self, source: Facts) -> str:
        first = source.get("first_offset")
        if self._span.topic_id and source.get("topic_id", self._span.topic_id) != self._span.topic_id:
            return "come from an earlier topic of this name"
        if not isinstance(first, int):
            return ""
        if first < self._span.low:
            return "began before what the log still holds"
        return "began outside the range" if not self._span.start <= first < self._span.stop else ""

    def _say_unaccounted(self) -> None:
        found = self._partition.unaccounted
        self._report.unaccounted = len(found)
        said = [f"offset {offset} is neither in Tiled nor in the dead letters: {why}" for offset, why in found]
        self._report.differences += said[:SENTENCES_MAX]
        if len(said) > SENTENCES_MAX:
            self._report.differences.append(f"... and {len(said) - SENTENCES_MAX} more documents")


def _repeated(stream: Any) -> int:
    stream.rows.flush()
    kept, optional, _ = stream.rows.kept()
    return int((~kept & ~optional).sum())


def _where(place: tuple[Path, Facts]) -> str:
    return "/".join(place[0])


def _mapping(value: Any) -> Facts:
    return value if isinstance(value, Mapping) else {}


def _is_known(source: Facts) -> bool:
    return isinstance(source.get("first_offset"), int)


def _is_of(source: Facts, span: Span) -> bool:
    return (source.get("topic"), source.get("partition")) == tuple(span.home)
