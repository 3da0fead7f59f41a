"""The schema of the chart's values. Below `settings` stands the service's own model, less what the chart sets."""

from __future__ import annotations

import copy
from typing import Any

from tiled_ingest.settings import OWNED, Settings

Schema = dict[str, Any]

# Kubernetes' own objects are checked by Kubernetes.
OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array"}
TEXT: Schema = {"type": "string"}
BOOL: Schema = {"type": "boolean"}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}

# No login and no query, in which a key could stand: this goes into a ConfigMap.
PLAIN_ADDRESS = r"^https?://[^/?#@]+(/[^?#]*)?$"


def schema() -> Schema:
    """Return the JSON schema of `values.yaml`."""
    settings, definitions = _settings()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tiled-ingest",
        **_group(
            {
                "beamline": {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"},
                "settings": settings,
                "secrets": _secrets(),
                "global": OBJECT,
                **_pod(),
                **_around(),
            },
            required=["beamline", "settings"],
        ),
        "definitions": definitions,
    }


def _group(properties: Schema, required: list[str] | None = None) -> Schema:
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "required": required} if required else made


def _settings() -> tuple[Schema, Schema]:
    """Return the schema of `settings`, and the definitions that it refers to."""
    model = _in_draft_7(Settings.model_json_schema())
    definitions = copy.deepcopy(model.pop("$defs"))
    del model["properties"]["beamline"]
    kafka, tiled = definitions["Kafka"], definitions["Tiled"]
    for name in ("api_key", "api_key_file"):
        del tiled["properties"][name]  # `secrets.tiledApiKey`
    tiled["properties"]["uri"]["pattern"] = PLAIN_ADDRESS
    kafka["required"] = ["bootstrap_servers"]
    allowed = kafka["properties"]["properties"]["additionalProperties"]
    kafka["properties"]["properties"] |= {
        "propertyNames": {"not": {"enum": sorted(OWNED)}},  # secrets: the template says what to do instead
        "additionalProperties": allowed,
    }
    return {**model, "required": ["kafka", "tiled"]}, definitions


def _in_draft_7(schema: Any) -> Any:
    """Helm reads draft 7: definitions have another place there, and nothing may stand beside a `$ref`."""
    if isinstance(schema, list):
        return [_in_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace("#/$defs/", "#/definitions/")}
    return {key: _in_draft_7(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}


def _secrets() -> Schema:
    reference = _group({"name": TEXT, "key": TEXT}, required=["name", "key"])
    file = _group({"name": TEXT, "key": TEXT, "configMap": BOOL}, required=["name", "key"])
    # `_file` is the chart's to add.
    property_names = {"pattern": r"^[a-z][a-z0-9.]*$"}
    return _group(
        {
            "tiledApiKey": {"anyOf": [reference, {"type": "object", "maxProperties": 0}]},
            "kafkaProperties": {"type": "object", "propertyNames": property_names, "additionalProperties": reference},
            "kafkaFiles": {"type": "object", "propertyNames": property_names, "additionalProperties": file},
        }
    )


def _pod() -> Schema:
    mount = _group(
        {"name": TEXT, "mountPath": {"type": "string", "pattern": "^/"}, "volume": OBJECT},
        required=["name", "mountPath", "volume"],
    )
    digest = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    return {
        "replicaCount": {"type": ["integer", "null"], "minimum": 0},
        "image": _group({"repository": TEXT, "tag": TEXT, "digest": digest, "pullPolicy": TEXT}),
        "imagePullSecrets": LIST,
        "nameOverride": TEXT,
        "fullnameOverride": TEXT,
        "serviceAccount": _group({"create": BOOL, "name": TEXT, "annotations": LABELS}),
        "terminationMarginSeconds": {"type": "integer", "minimum": 5},
        "detectorMounts": {"type": "array", "items": mount},
        "tmpSizeLimit": TEXT,
        **dict.fromkeys(("podSecurityContext", "securityContext", "resources", "nodeSelector", "affinity"), OBJECT),
        **dict.fromkeys(("tolerations", "topologySpreadConstraints"), LIST),
        **dict.fromkeys(("extraEnv", "extraVolumes", "extraVolumeMounts"), LIST),
        **dict.fromkeys(("podAnnotations", "podLabels"), LABELS),
        "priorityClassName": TEXT,
    }


def _around() -> Schema:
    rules = {
        "enabled": BOOL,
        "labels": LABELS,
        "retentionSeconds": {"type": "integer", "minimum": 60},
        "runbookUrl": {"type": "string", "pattern": "^https?://.*[^/]$"},
    }
    service = {"enabled": BOOL, "type": TEXT, "port": {"type": "integer"}, "annotations": LABELS}
    return {
        "podDisruptionBudget": _group({"enabled": BOOL, "maxUnavailable": {"type": ["integer", "string"]}}),
        "service": _group(service),
        "networkPolicy": _group({"enabled": BOOL, "ingressFrom": LIST, "egress": LIST}),
        "monitoring": _group(
            {
                "podMonitor": _group({"enabled": BOOL, "interval": TEXT, "labels": LABELS}),
                "rules": _group(rules),
                "dashboard": _group({"enabled": BOOL, "labels": LABELS, "annotations": LABELS}),
            }
        ),
        "tests": _group({"enabled": BOOL}),
    }
