"""What the chart is made of that has its source elsewhere: `python -m deploy.generate [--check]`.

- `helm/values.schema.json`: the names below `settings` are those of the service's own model
- `helm/files/defaults.json`: the defaults that the chart counts with, and what the service holds for secret
- `helm/files/dashboard.json`: the Grafana dashboard, from `dashboard.py`

`--check` writes nothing, and exits with 1 if one of them is not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deploy import dashboard, values
from tiled_ingest.settings import HIDDEN_NAME, LOGIN, OPEN_NAME, Http, Limits

CHART = Path(__file__).parent.parent / "helm"


def defaults() -> dict[str, Any]:
    """Return what decides how long a pod's end takes, where it is probed, and what may stand in no ConfigMap."""
    limits, http = Limits(), Http()
    return {
        "limits": {"drain_s_max": limits.drain_s_max, "commit_s_max": limits.commit_s_max},
        "http": {"port": http.port},
        "secrets": {"name": HIDDEN_NAME, "place": OPEN_NAME, "login": LOGIN},
    }


def generated() -> dict[Path, str]:
    """Return the files and what they should hold."""
    made = {
        CHART / "values.schema.json": values.schema(),
        CHART / "files" / "defaults.json": defaults(),
        CHART / "files" / "dashboard.json": dashboard.dashboard(),
    }
    return {path: json.dumps(content, indent=2) + "\n" for path, content in made.items()}


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` compare them; return the exit status."""
    files = generated()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(CHART.parent)} is not current: make generate\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(files[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
