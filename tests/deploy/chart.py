"""The chart, rendered: its objects, and the pod's settings as the service itself reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import CHART, helm, run
from tiled_ingest.settings import Settings, load

Object = dict[str, Any]
SECRETS = "/etc/tiled-ingest/secrets"


CONFIG = "TILED_INGEST_CONFIG"
CLUSTER = ("--namespace", "beamlines", "--kube-version", "1.34")


def rendered(values: Path, *more: str) -> list[Object]:
    """Return the objects that an installation with these values makes."""
    return [found for found in yaml.load_all(_template(values, *more), yaml.CSafeLoader) if found]


@cache
def _template(values: Path, *more: str) -> str:
    return run([helm(), "template", "release", CHART, *CLUSTER, "--values", values, *more])


def one(objects: list[Object], kind: str, **labels: str) -> Object:
    """Return the one object of a kind."""
    (found,) = [
        each for each in objects if each["kind"] == kind and labels.items() <= each["metadata"]["labels"].items()
    ]
    return found


def values_of(path: Path) -> Object:
    content: Object = yaml.safe_load(path.read_text())
    return content


def pod_of(deployment: Object) -> Object:
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def mounted_files(pod: Mapping[str, Any]) -> set[str]:
    """Return the paths of the secrets' files in the pod."""
    volumes = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    sources = [each for volume in volumes for source in volume["sources"] for each in source.values()]
    return {f"{SECRETS}/{item['path']}" for source in sources for item in source["items"]}


def settings_text(objects: list[Object]) -> str:
    """Return the settings file of the ConfigMap."""
    (text,) = [each["data"]["settings.yaml"] for each in objects if "settings.yaml" in each.get("data", {})]
    return str(text)


def settings_of(objects: list[Object], folder: Path, secret: str) -> Settings:
    """Read the rendered settings as the pod's process does, with the secrets' files in a folder instead."""
    pod = pod_of(one(objects, "Deployment"))
    for path in mounted_files(pod):
        file = Path(path.replace(SECRETS, str(folder)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secret + "\n")
    config = folder / "settings.yaml"
    config.write_text(settings_text(objects).replace(SECRETS, str(folder)))
    (container,) = pod["containers"]
    return load(config, environ={each["name"]: each["value"] for each in container["env"] if each["name"] != CONFIG})


def plain(settings: Settings) -> Object:
    """Return everything that is set, secrets in clear."""
    content: Object = json.loads(json.dumps(settings.model_dump(), default=lambda secret: secret.get_secret_value()))
    return content
