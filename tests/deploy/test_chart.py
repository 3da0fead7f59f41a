"""The chart: every case that `helm/ci` names, by Helm, by Kubernetes' schemas, by a policy, and by our own model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

from tests.deploy.chart import (
    CLUSTER,
    CONFIG,
    Object,
    mounted_files,
    one,
    plain,
    pod_of,
    rendered,
    settings_of,
    settings_text,
    values_of,
)
from tests.deploy.tools import CHART, CI_VALUES, checkov, helm, run
from tiled_ingest import __version__
from tiled_ingest.core.runs.routes import route
from tiled_ingest.kafka.topics import is_named
from tiled_ingest.settings import Settings, is_secret, load

KUBERNETES = ("1.27", "1.37")  # the oldest that the chart allows, the newest that there are schemas for
SENTINEL = "sentinel-7d1f0c"
MINIMAL = CHART / "ci" / "minimal-values.yaml"
BEAMLINE = CHART / "ci" / "beamline-values.yaml"
SCALED = CHART / "ci" / "scaled-values.yaml"
AUTOSCALED = CHART / "ci" / "autoscaled-values.yaml"

each_case = pytest.mark.parametrize("values", CI_VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def refused(*arguments: str) -> str:
    """What Helm says when it refuses the minimal values with something more."""
    with pytest.raises(AssertionError) as error:
        run([helm(), "template", "release", CHART, *CLUSTER, "--values", MINIMAL, *arguments])
    return str(error.value)


# ---------------------------------------------------------------- the tools' word


@each_case
def test_helm_lints_it(values: Path) -> None:
    run([helm(), "lint", "--strict", CHART, "--values", values])


@each_case
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_its_objects(values: Path, version: str) -> None:
    own = [each for each in rendered(values) if not each["apiVersion"].startswith("monitoring.coreos.com")]
    assert len(own) >= 2
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_wrong_object_would_be_seen() -> None:
    deployment = one(rendered(MINIMAL), "Deployment")
    pod_of(deployment)["containers"][0]["livenes"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


def test_the_prometheus_operator_takes_its_objects() -> None:
    objects = rendered(BEAMLINE)
    for model, kind in ((PodMonitor, "PodMonitor"), (PrometheusRule, "PrometheusRule")):
        given = one(objects, kind)
        understood = model.model_validate(given).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert understood == given  # the models drop what they do not know
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(objects, "PodMonitor")["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_policy_finds_nothing(tmp_path: Path) -> None:
    """Pod security as `restricted` asks for it, and more; what is left out is left out for a reason."""
    left_out = {
        "CKV_K8S_15": "our tags are never moved: a node may keep the image",
        "CKV_K8S_11": "a CPU limit throttles a backlog; the request is what counts",
        "CKV_K8S_43": "the digest is the site's to give: `image.digest`",
        "CKV2_K8S_6": "the NetworkPolicy needs to know where Kafka and Tiled are: `networkPolicy`",
        "CKV_K8S_8": "the pod of `helm test` ends by itself",
        "CKV_K8S_9": "the pod of `helm test` ends by itself",
    }
    for values in (BEAMLINE, SCALED):
        manifest = tmp_path / f"{values.stem}.yaml"
        manifest.write_text(yaml.safe_dump_all(rendered(values)))
    quiet = ["--skip-download", "--soft-fail", "--compact", "--quiet", "--output", "json"]
    command = ["--framework", "kubernetes", "--directory", str(tmp_path), "--skip-check", ",".join(left_out)]
    found = json.loads(run(checkov(*command, *quiet)))
    failed = [(each["check_id"], each["resource"], each["check_name"]) for each in found["results"]["failed_checks"]]
    assert failed == []
    assert found["summary"]["passed"] > 100


# ---------------------------------------------------------------- settings, there and back


@each_case
def test_the_service_reads_what_the_values_say(values: Path, tmp_path: Path) -> None:
    given = values_of(values)
    settings = settings_of(rendered(values), tmp_path, SENTINEL)
    assert plain(settings) == plain(expected(given, tmp_path))


def expected(given: Object, folder: Path) -> Settings:
    """The model, made directly from the values, without Helm."""
    settings = {"beamline": given["beamline"], **given["settings"]}
    kafka = {"group_id": f"{given['beamline']}-tiled-ingest", **settings["kafka"]}
    kafka.setdefault("topics", [f"{given['beamline']}.bluesky.runengine.documents"])
    if given.get("replicaCount", 1) == 1:
        kafka["instance_id"] = "release-tiled-ingest-0"
    secrets = given.get("secrets", {})
    for name in secrets.get("kafkaProperties", {}):
        kafka["properties"][name] = SENTINEL
    for name, file in secrets.get("kafkaFiles", {}).items():
        kind = "configmap" if file.get("configMap") else "secret"
        kafka["properties"][name] = str(folder / f"{kind}-{file['name']}" / file["key"])
    tiled = {**settings["tiled"], **({"api_key": SENTINEL} if "tiledApiKey" in secrets else {})}
    return load(None, {**settings, "kafka": kafka, "tiled": tiled}, {})


def test_the_example_beamline_routes_its_topics(tmp_path: Path) -> None:
    settings = settings_of(rendered(BEAMLINE), tmp_path, SENTINEL)
    routes, start = settings.policy().routes, {"data_session": "pass-7"}
    assert route(routes, "xyz.bluesky.runengine.documents", start) == ("xyz", "pass-7")
    assert route(routes, "xyz-3.bluesky.documents", start) == ("xyz", "endstation-3")
    assert [topic for topic in ("xyz.bluesky.runengine.documents", "xyz-3.bluesky.documents")
            if not is_named(topic, settings.kafka.topics)] == []  # fmt: skip


@each_case
def test_every_secret_of_the_settings_is_a_mounted_file(values: Path) -> None:
    objects = rendered(values)
    pod = pod_of(one(objects, "Deployment"))
    text = settings_text(objects)
    assert set(re.findall(r"/etc/tiled-ingest/secrets/\S+", text)) == mounted_files(pod)
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert not mounted_files(pod) or mounts["secrets"]["readOnly"]


@pytest.mark.parametrize(
    "argument",
    [
        f"settings.tiled.api_key={SENTINEL}",
        f"settings.tiled.uri=https://tiled.example.org/api/v1?api_key={SENTINEL}",
        f"settings.tiled.uri=https://user:{SENTINEL}@tiled.example.org/api/v1",
        f"settings.tiled.uri=https://{SENTINEL}@tiled.example.org",
        f"settings.tiled.uri=https://tiled.example.org#{SENTINEL}",
        f"secrets.tiledApiKey={SENTINEL}",
        f"secrets.tiledApiKey.value={SENTINEL}",
        f"secrets.kafkaProperties.sasl\\.password={SENTINEL}",
    ],
)
def test_no_secret_can_be_written_into_the_values(argument: str) -> None:
    said = refused("--set", argument)
    assert "don't meet the specifications of the schema" in said


# Of librdkafka (2.16: those that it calls sensitive itself), of Kafka's own clients, and as people spell them.
SECRET_PROPERTIES = (
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl_key",
    "ssl.keystore.password",
    "sasl.jaas.config",
    "sasl.token",
    "SASL.PASSWORD",
    "sasl_password",
    "Ssl_Key.Pem",
)
OPEN_PROPERTIES = ("sasl.username", "ssl.key.location", "sasl.oauthbearer.token.endpoint.url", "SSL_CA_LOCATION")


@pytest.mark.parametrize("name", SECRET_PROPERTIES + OPEN_PROPERTIES)
@pytest.mark.parametrize("ending", ["", "_file"])
def test_the_chart_takes_for_secret_what_the_service_does(name: str, ending: str) -> None:
    """In the service such a value is a `SecretStr`; in the chart it is refused, and who tries learns the way."""
    assert is_secret(name) is (name in SECRET_PROPERTIES)
    argument = ("--set", f"settings.kafka.properties.{escaped(name + ending)}={SENTINEL}")
    if not is_secret(name):
        assert SENTINEL in settings_text(rendered(MINIMAL, *argument))
        return
    said = refused(*argument)
    reference = f"{name.lower().replace('_', '.')}: {{name: "
    assert f"{name}{ending} is a secret: put it into a Secret, and name that: secrets.kafkaProperties: " in said
    assert reference in said
    assert SENTINEL not in said.partition("Error:")[2]
    there = f"secrets.kafkaProperties.{escaped(reference.partition(':')[0])}"
    objects = rendered(MINIMAL, "--set", f"{there}.name=my-secret", "--set", f"{there}.key=my-key")
    assert "/secret-my-secret/my-key" in settings_text(objects)


def escaped(name: str) -> str:
    """A name in one of Helm's paths."""
    return name.replace(".", "\\.")


@pytest.mark.parametrize(
    ("path", "value", "next_step"),
    [
        ("settings.kafka.bootstrap_servers", f"user:{SENTINEL}@kafka:9092", "secrets.kafkaProperties: {sasl.password:"),
        ("settings.kafka.bootstrap_servers", f"a:9092\\,SASL_SSL://{SENTINEL}@b:9092", "secrets.kafkaProperties: {"),
        (
            "settings.kafka.properties.sasl\\.oauthbearer\\.token\\.endpoint\\.url",
            f"https://us:{SENTINEL}@host/token",
            "{name: TILED_INGEST_KAFKA__PROPERTIES__SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, valueFrom: {secretKeyRef: ",
        ),
    ],
)
def test_no_address_in_the_settings_has_a_login(path: str, value: str, next_step: str) -> None:
    said = refused("--set", f"{path}={value}")
    assert next_step in said
    assert SENTINEL not in said.partition("Error:")[2]


@pytest.mark.parametrize(
    ("name", "value", "next_step"),
    [
        ("HTTPS_PROXY", f"http://user:{SENTINEL}@proxy:3128", "{name: HTTPS_PROXY, valueFrom: {secretKeyRef: "),
        ("HTTPS_PROXY", f"user:{SENTINEL}@proxy:3128", "{name: HTTPS_PROXY, valueFrom: {secretKeyRef: "),
        ("AWS_SECRET_ACCESS_KEY", SENTINEL, "{name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: "),
        ("TILED_INGEST_TILED__API_KEY", SENTINEL, "a secret under `secrets`"),
        ("TILED_INGEST_KAFKA__Properties__ssl_key", SENTINEL, "a secret under `secrets`"),
        ("TILED_INGEST_KAFKA", f'{{"properties": {{"ssl_key": "{SENTINEL}"}}}}', "a secret under `secrets`"),
        ("TILED_INGEST_HTTP__PORT", "9000", "it goes under `settings`"),
    ],
)
def test_no_secret_stands_in_a_variable(name: str, value: str, next_step: str) -> None:
    said = refused("--set-json", f"extraEnv={json.dumps([{'name': name, 'value': value}])}")
    assert f"extraEnv: {name} " in said
    assert next_step in said
    assert SENTINEL not in said.partition("Error:")[2]


def test_other_variables_and_references_stand_as_they_are() -> None:
    reference = {"secretKeyRef": {"name": "my-secret", "key": "my-key"}}
    given = [
        {"name": "SSL_CERT_FILE", "value": "/etc/site/ca.crt"},
        {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"},
        {"name": "TILED_INGEST_TILED__API_KEY", "valueFrom": reference},
        {"name": "TILED_INGEST_KAFKA__PROPERTIES__SASL_PASSWORD_FILE", "value": "/etc/site/password"},
    ]
    (container,) = pod_of(one(rendered(MINIMAL, "--set-json", f"extraEnv={json.dumps(given)}"), "Deployment"))[
        "containers"
    ]
    assert [each for each in container["env"] if each["name"] != CONFIG] == given


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("settings.kafka.topcs=x", "topcs"),
        ("settings.batch.rows_max=0", "rows_max"),
        ("settings.kafka.properties.group\\.id=x", "group.id"),
        ("settings.kafka.bootstrap_servers=null", "bootstrap_servers"),
        ("beamline=null", "beamline"),
        ("beamline=a b", "beamline"),
        ("replicas=3", "replicas"),
    ],
)
def test_wrong_values_are_refused_by_name(argument: str, named: str) -> None:
    assert named in refused("--set", argument)


def test_several_replicas_cannot_share_one_name() -> None:
    assert "instance_id" in refused("--set", "replicaCount=2", "--set", "settings.kafka.instance_id=x")


def test_a_network_policy_must_say_where_kafka_and_tiled_are() -> None:
    assert "networkPolicy.egress" in refused("--set", "networkPolicy.enabled=true")


def test_what_is_generated_is_current() -> None:
    run([sys.executable, "-m", "deploy.generate", "--check"])


def test_the_schema_knows_every_setting() -> None:
    """A setting that the model has and the schema lacks could not be set by the chart."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    model = Settings.model_json_schema()
    for group, definition in model["$defs"].items():
        ours = set(schema["definitions"][group]["properties"])
        lacking = set(definition["properties"]) - ours
        assert lacking <= {"api_key", "api_key_file"}, lacking


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


# ---------------------------------------------------------------- the pod


@each_case
def test_a_pod_may_do_nothing_that_it_need_not(values: Path) -> None:
    objects = rendered(values)
    pods = [pod_of(one(objects, "Deployment")), *(each["spec"] for each in objects if each["kind"] == "Pod")]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounts = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
            assert [mount["mountPath"] for mount in mounts] == ["/tmp"]
            assert container["resources"]["limits"]["memory"]


def test_one_replica_is_a_static_member_that_is_recreated() -> None:
    spec = one(rendered(MINIMAL), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_several_replicas_roll_without_a_surge(tmp_path: Path) -> None:
    objects = rendered(SCALED)
    spec = one(objects, "Deployment")["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert settings_of(objects, tmp_path, SENTINEL).kafka.instance_id is None


def test_an_autoscaler_counts_the_replicas() -> None:
    assert "replicas" not in one(rendered(AUTOSCALED), "Deployment")["spec"]


@each_case
def test_kubernetes_waits_until_writes_are_drained_and_committed(values: Path, tmp_path: Path) -> None:
    objects = rendered(values)
    limits = settings_of(objects, tmp_path, SENTINEL).limits
    grace_s = pod_of(one(objects, "Deployment"))["terminationGracePeriodSeconds"]
    assert grace_s >= limits.drain_s_max + limits.commit_s_max + 10


@each_case
def test_the_probes_ask_the_port_that_is_served(values: Path, tmp_path: Path) -> None:
    objects = rendered(values)
    (container,) = pod_of(one(objects, "Deployment"))["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == settings_of(objects, tmp_path, SENTINEL).http.port
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert all(probe["port"] == port["name"] for probe in probes.values())


def test_a_changed_setting_restarts_the_pod() -> None:
    def checksum(*more: str) -> Any:
        template = one(rendered(MINIMAL, *more), "Deployment")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum("--set", "service.enabled=true")
    assert checksum() != checksum("--set", "settings.batch.rows_max=1000")


def test_detector_folders_are_read_only() -> None:
    pod = pod_of(one(rendered(BEAMLINE), "Deployment"))
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["detectors"] == {"name": "detectors", "mountPath": "/data/xyz", "readOnly": True}
    assert pod["securityContext"]["runAsUser"] == 30123


@each_case
def test_selectors_select_the_pods_and_not_the_tests(values: Path) -> None:
    objects = rendered(values)
    deployment = one(objects, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    for pod in (each for each in objects if each["kind"] == "Pod"):
        assert not selector.items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["containers"][0]["args"] == ["check"]
        assert {"name": CONFIG, "value": "/etc/tiled-ingest/settings/settings.yaml"} in pod["spec"]["containers"][0][
            "env"
        ]


def test_rules_are_narrowed_to_the_beamline() -> None:
    rules = one(rendered(BEAMLINE), "PrometheusRule")["spec"]
    text = json.dumps(rules)
    assert 'beamline=~\\".+\\"' not in text
    assert text.count('beamline=\\"xyz\\"') == (CHART / "files" / "alerts.yaml").read_text().count('beamline=~".+"')
    expressions = {rule["alert"]: rule["expr"] for rule in rules["groups"][0]["rules"]}
    assert expressions["TiledIngestRetentionRisk"].endswith("> 604800")  # half of 14 days


def test_the_dashboard_survives_the_way_through_helm() -> None:
    found = one(rendered(BEAMLINE), "ConfigMap", grafana_dashboard="1")["data"]["tiled-ingest.json"]
    assert json.loads(found) == json.loads((CHART / "files" / "dashboard.json").read_text())


def test_notes_say_what_to_do_next() -> None:
    said = run([helm(), "install", "release", CHART, "--dry-run=client", "--values", BEAMLINE])
    notes = said.partition("NOTES:")[2]
    assert "helm test release" in notes
    assert "registry.example.org/tiled-ingest:1" in notes  # whose image it is: none is published
    assert "image.repository" in notes
    assert "port-forward deployment/release-tiled-ingest" in notes
    assert "xyz-tiled-ingest.dead-letters" in notes
    assert "no `secrets.tiledApiKey`" not in notes
