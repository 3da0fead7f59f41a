"""What is left of a go: a JSON file, plots, and a table between two marks of a page of the docs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.bench.figures import Figure

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
MEASURED = ("tiled", "bluesky-tiled-plugins", "bluesky-kafka", "confluent-kafka", "pyarrow", "msgspec")


@dataclass(frozen=True)
class Circumstances:
    """Where and how the numbers came to be. `load`: the machine's load average when it began: above 0.2 it was busy."""

    date: str
    repeat: int
    load: float

    def as_json(self) -> dict[str, Any]:
        return {
            "date": self.date,
            "repeat": self.repeat,
            "load_before": self.load,
            "cores": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in MEASURED},
        }


def write(figures: Sequence[Figure], there: Circumstances, folder: Path, page: Path | None) -> None:
    """Write `results.json` and plots into the folder, and the table into the page."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {**there.as_json(), "figures": [figure.as_json() for figure in figures]}
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    plot(figures, folder)
    if page is not None:
        text = page.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{markdown(figures, there)}\n{END}{after}")


def markdown(figures: Sequence[Figure], there: Circumstances) -> str:
    """The table, and the circumstances in a line."""
    facts = there.as_json()
    cores, load = facts["cores"], facts["load_before"]
    lines = [
        f"{there.date}: {cores} cores, load {load:.1f} before it began, medians of {there.repeat}; "
        + ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
        + ".",
        "",
        "| Row | What | Ours | Beside it | Ratio | Goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(figure) for figure in figures])


def _line(figure: Figure) -> str:
    value = "-" if figure.value is None else f"{_short(figure.value)} {figure.unit}".strip()
    peer = f"{_short(_median(figure.peers))} ({figure.peer})" if figure.peers else ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}" if figure.ratio < 10 else f"{figure.ratio:.0f}"
    verdict = {True: "yes", False: "**no**", None: ""}[figure.reached]
    cells = (figure.row, figure.what, value, peer, ratio, figure.goal or "", figure.note or verdict)
    return f"| {' | '.join(map(str, cells))} |"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def plot(figures: Sequence[Figure], folder: Path) -> None:
    """Ratios to the peers, with every repetition as a point; and the cost of an event as a run grows."""
    import matplotlib as mpl  # noqa: PLC0415 - only where plots are made

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "bench"  # the same figures, the same file
    import matplotlib.pyplot as plt  # noqa: PLC0415

    if compared := [figure for figure in figures if figure.peers]:
        picture, axes = plt.subplots(figsize=(9, 0.45 * len(compared) + 1.2), layout="constrained")
        for place, figure in enumerate(reversed(compared)):
            ratios = [one / other for one, other in zip(figure.values, figure.peers, strict=False)]
            axes.plot(ratios, [place] * len(ratios), "o", alpha=0.6)
            if figure.goal is not None and figure.goal.of == "ratio":
                axes.plot([figure.goal.number], [place], "k|", markersize=14)
        axes.set_yticks(range(len(compared)), [f"{it.what}\nbeside {it.peer}" for it in reversed(compared)], fontsize=7)
        axes.set_xscale("log")
        axes.set_xlabel("ours / peer of the same run (bar: the goal)")
        axes.grid(axis="x", alpha=0.3)
        picture.savefig(folder / "ratios.svg", metadata={"Date": None})
        plt.close(picture)
    for figure in figures:
        if figure.samples:
            picture, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
            axes.plot(*zip(*figure.samples, strict=True))
            axes.set_xlabel("rows written")
            axes.set_ylabel("CPU of the service, s")
            axes.grid(alpha=0.3)
            picture.savefig(folder / "growth.svg", metadata={"Date": None})
            plt.close(picture)
