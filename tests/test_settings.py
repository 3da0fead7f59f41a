"""Settings: what wins, what is refused and how it is said, and that no secret shows."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tiled_ingest.core.policy import Policy
from tiled_ingest.demo.processes import inherited
from tiled_ingest.settings import Kafka, Settings, SettingsError, Tiled, load, sources

NEEDED = {
    "beamline": "sim",
    "kafka.bootstrap_servers": "localhost:9092",
    "kafka.group_id": "ingest",
    "kafka.topics": '["sim.bluesky.runengine.documents"]',
    "tiled.uri": "http://localhost:8000/api/v1/metadata/raw/",
}
SECRET = "correct-horse-battery"  # what no line may show


def made(environ: dict[str, str] | None = None, **changes: Any) -> Settings:
    overrides = {**NEEDED, **{name.replace("__", "."): value for name, value in changes.items()}}
    return load(None, {name: value for name, value in overrides.items() if value is not None}, environ or {})


def complaint(environ: dict[str, str] | None = None, **changes: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        made(environ, **changes)
    line = str(caught.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


def test_defaults_are_the_engine_s() -> None:
    policy = made().policy()
    assert policy == Policy(version=policy.version)


def test_everything_reaches_the_policy() -> None:
    settings = made(
        kafka__start_offset="latest",
        runs__foreign="skip",
        batch__rows_max="7",
        tiled__routes='[{"topic": "^(sim)", "path": "{1}/{start[data_session]}"}]',
        limits__dead_letter_share_max=0.5,
    )
    policy = settings.policy()
    assert (policy.start_latest, policy.foreign_skip, policy.rows_max) == (True, True, 7)
    assert policy.routes == (("^(sim)", "{1}/{start[data_session]}"),)
    assert policy.breaker_share_max == 0.5


def test_command_line_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("beamline: file\nbatch: {rows_max: 1, bytes_max: 1, age_s_max: 1}\n")
    environ = {"TILED_INGEST_BATCH__ROWS_MAX": "2", "TILED_INGEST_BATCH__BYTES_MAX": "2"}
    overrides = {**NEEDED, "batch.rows_max": "3"}
    settings = load(path, overrides, environ)
    assert (settings.batch.rows_max, settings.batch.bytes_max, settings.batch.age_s_max) == (3, 2, 1.0)
    origins = {entry.name: entry.origin for entry in sources(path, overrides, environ)}
    assert origins["batch.rows_max"] == "command line"
    assert origins["batch.bytes_max"] == "environment TILED_INGEST_BATCH__BYTES_MAX"
    assert origins["batch.age_s_max"] == f"file {path}"
    assert origins["runs.open_max"] == "default"


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("http: {port: 1234}\nkafka:\n")
    assert load(None, NEEDED, {"TILED_INGEST_CONFIG": str(path)}).http.port == 1234


def test_kafka_properties_of_several_places_join(tmp_path: Path) -> None:
    path, secret = tmp_path / "config.yaml", tmp_path / "password"
    path.write_text("kafka: {properties: {security.protocol: SASL_SSL, sasl.username: me, socket.timeout.ms: 9}}\n")
    secret.write_text(SECRET + "\n")
    environ = {
        "TILED_INGEST_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": str(secret),
        "TILED_INGEST_KAFKA__PROPERTIES": '{"socket.keepalive.enable": true}',
    }
    settings = load(path, NEEDED, environ)
    assert settings.kafka.client_properties() == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_SSL",
        "sasl.username": "me",
        "sasl.password": SECRET,
        "socket.timeout.ms": "9",
        "socket.keepalive.enable": "true",
    }
    assert settings.secrets() == (SECRET,)
    assert SECRET not in repr(settings)


def test_a_group_as_json_joins_its_members() -> None:
    environ = {
        "TILED_INGEST_BATCH__ROWS_MAX": "3",
        "TILED_INGEST_BATCH": '{"rows_max": 1, "bytes_max": 2}',
        "TILED_INGEST_KAFKA__PROPERTIES__CLIENT_ID": "me",
    }
    overrides = {**NEEDED, "kafka.properties.client.rack": "b1", "kafka": '{"properties": {"client.dns.lookup": "x"}}'}
    settings = load(None, overrides, environ)
    assert (settings.batch.rows_max, settings.batch.bytes_max) == (3, 2)
    assert dict(settings.kafka.properties) == {"client.id": "me", "client.rack": "b1", "client.dns.lookup": "x"}
    origins = {entry.name: entry.origin for entry in sources(None, overrides, environ)}
    assert origins["batch.bytes_max"] == "environment TILED_INGEST_BATCH"
    assert origins["batch.rows_max"] == "environment TILED_INGEST_BATCH__ROWS_MAX"
    assert origins["kafka.properties.client.dns.lookup"] == "command line"


def test_one_topic_needs_no_brackets() -> None:
    environ = {"TILED_INGEST_KAFKA__TOPICS": "one"}
    assert made(environ, kafka__topics=None).kafka.topics == ("one",)
    assert made(kafka__topics=["one", "^two"]).kafka.topics == ("one", "^two")


def test_made_directly_it_reads_the_process_s_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ.keys() - inherited().keys():
        monkeypatch.delenv(name)
    path = tmp_path / "config.yaml"
    path.write_text("batch: {rows_max: 1, bytes_max: 1}\n")
    monkeypatch.setenv("TILED_INGEST_CONFIG", str(path))
    monkeypatch.setenv("TILED_INGEST_BATCH__BYTES_MAX", "2")
    kafka = Kafka(bootstrap_servers="localhost:9092", group_id="g", topics=("t",))
    settings = Settings(beamline="sim", kafka=kafka, tiled=Tiled(uri="http://localhost"))
    assert (settings.batch.rows_max, settings.batch.bytes_max) == (1, 2)


def test_equal_settings_are_equal() -> None:
    assert made() == made()
    assert made() != made(batch__rows_max=7)


@pytest.mark.parametrize("place", ["file", "environment", "command line"])
def test_a_secret_may_come_from_a_file_everywhere(place: str, tmp_path: Path) -> None:
    secret, path = tmp_path / "key", tmp_path / "config.yaml"
    secret.write_text(SECRET + "\n")
    path.write_text(f"tiled: {{api_key_file: {secret}}}\n")
    config = path if place == "file" else None
    environ = {"TILED_INGEST_TILED__API_KEY_FILE": str(secret)} if place == "environment" else {}
    overrides = {**NEEDED, **({"tiled.api_key_file": str(secret)} if place == "command line" else {})}
    key = load(config, overrides, environ).tiled.api_key
    assert key is not None
    assert key.get_secret_value() == SECRET
    shown = {entry.name: entry for entry in sources(config, overrides, environ)}["tiled.api_key"]
    assert shown.value == "********"
    assert place in shown.origin


def test_a_variable_without_text_is_none(tmp_path: Path) -> None:
    """Compose files and charts pass `${KEY:-}`."""
    secret = tmp_path / "key"
    secret.write_text(SECRET)
    environ = {"TILED_INGEST_TILED__API_KEY": "", "TILED_INGEST_TILED__API_KEY_FILE": str(secret)}
    key = load(None, NEEDED, environ).tiled.api_key
    assert key is not None
    assert key.get_secret_value() == SECRET


def test_no_secret_in_what_is_shown() -> None:
    environ = {"TILED_INGEST_KAFKA__PROPERTIES": json.dumps({"ssl.key.password": SECRET, "ssl.key.pem": SECRET})}
    shown = sources(None, {**NEEDED, "tiled.api_key": SECRET}, environ)
    assert SECRET not in repr(shown)
    assert sum(entry.value == "********" for entry in shown) == 3


@pytest.mark.parametrize("name", ["SASL.PASSWORD", "ssl_key", "Sasl_Token", "sasl.jaas.config"])
def test_a_secret_is_one_however_it_is_spelled(name: str) -> None:
    shown = sources(None, {**NEEDED, "kafka.properties": json.dumps({name: SECRET})}, {})
    assert SECRET not in repr(shown)


def test_an_address_with_a_login_is_a_secret() -> None:
    settings = made(kafka__properties=json.dumps({"sasl.oauthbearer.token.endpoint.url": f"https://me:{SECRET}@host"}))
    assert settings.secrets() == (f"https://me:{SECRET}@host",)


def test_the_place_of_a_key_is_no_secret() -> None:
    settings = made({"TILED_INGEST_KAFKA__PROPERTIES__SSL_KEY_LOCATION": "/etc/key.pem"})
    assert settings.secrets() == ()


@pytest.mark.parametrize("name", ["beamline", "kafka.topics", "kafka.bootstrap_servers", "tiled.uri"])
def test_what_is_missing_is_named_with_how_to_set_it(name: str) -> None:
    line = complaint(**{name: None})
    assert line.startswith(f"{name}: is missing")
    assert "TILED_INGEST_" + name.upper().replace(".", "__") in line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kafka.topics": "[]"}, "kafka.topics: at least one topic is needed"),
        ({"kafka.topics": "a,b"}, "kafka.topics: 'a,b' is no topic name"),
        ({"kafka.topics": "^("}, "kafka.topics: '^(' is no regular expression"),
        ({"kafka.topics": "^.*"}, "kafka.topics: '^.*' also reads the dead letters (ingest.dead-letters)"),
        ({"kafka.topic": "x"}, "kafka.topic: unknown setting; did you mean kafka.topics?"),
        ({"kafka": "x"}, "kafka: is a group of settings"),
        ({"kafka.properties.group.id": "x"}, "kafka.properties.group.id: is ours to set"),
        (
            {"kafka.properties.enable.auto.commit": True},
            "kafka.properties.enable.auto.commit: is ours to set",
        ),
        ({"kafka.properties.max.poll.interval.ms": 70_000}, "limits.drain_s_max: with limits.commit_s_max"),
        ({"kafka.properties.max.poll.interval.ms": "soon"}, "kafka.properties.max.poll.interval.ms: must be"),
        ({"kafka.topics": r"^a\d+$"}, r"kafka.topics: '^a\\d+$': \d is none of POSIX's"),
        ({"kafka.topics": "^(?:a|b)$"}, "kafka.topics: '^(?:a|b)$': (? is none of POSIX's"),
        ({"tiled.routes": '[{"topic": "(", "path": "x"}]'}, "tiled.routes.0.topic: '(' is no regular"),
        ({"tiled.routes": '[{"topic": "a", "path": "{1}"}]'}, "tiled.routes.0.path: {1} is neither"),
        (
            {"tiled.routes": '[{"topic": "a", "path": "{start.x}"}]'},
            "tiled.routes.0.path: {start.x} is neither",
        ),
        ({"tiled.patches": '[{"match": "(", "replace": "x"}]'}, "tiled.patches.0.match: '(' is no regular"),
        ({"tiled.patches": '[{"match": "^/a", "replace": "\\\\1"}]'}, "tiled.patches.0.replace: invalid group"),
        ({"tiled.routes": "["}, "tiled.routes: no JSON"),
        ({"tiled.uri": "localhost"}, "tiled.uri: an address like"),
        ({"tiled.uri": f"http://me:{SECRET}@host"}, "tiled.uri: no login and no query"),
        ({"kafka.bootstrap_servers": f"me:{SECRET}@host:9092"}, "kafka.bootstrap_servers: no login in an address"),
        ({"tiled.uri": f"http://host?api_key={SECRET}"}, "tiled.uri: no login and no query"),
        ({"tiled.uri_file": "x"}, "tiled.uri_file: unknown setting"),
        ({"tiled.api_key_file": "nowhere"}, "tiled.api_key_file: cannot read nowhere: No such file"),
        (
            {"tiled.api_key_file": "x", "tiled.api_key": SECRET},
            "tiled.api_key_file: give the secret or its file",
        ),
        ({"batch.rows_max": 0}, "batch.rows_max: input should be greater than 0"),
        ({"batch.age_s_max": "nan"}, "batch.age_s_max: input should be"),
        ({"batch.bytes_max": 10**12}, "batch.bytes_max: must not exceed memory.bytes_max"),
        ({"log.level": "loud"}, "log.level: input should be 'debug'"),
        ({"beamline": "a\nb"}, "beamline: "),
        ({"beamline.x": "1"}, "beamline.x: unknown setting"),
        ({"kafka": f'{{"properties": "{SECRET}'}, "kafka: no JSON (from command line)"),
        ({"kafka.properties": f'{{"sasl.password": "{SECRET}"'}, "kafka.properties: no JSON"),
        ({"_env_file": "x"}, "_env_file: unknown setting"),  # an argument of pydantic-settings' own
        ({"_given": "x"}, "_given: unknown setting"),
    ],
)
def test_one_line_names_what_is_wrong(changes: dict[str, Any], line: str) -> None:
    assert complaint(**changes).startswith(line)


def test_a_misspelled_variable_is_refused() -> None:
    line = complaint({"TILED_INGEST_KAFKA__TOPIC": "x"})
    assert line.startswith("kafka.topic: unknown setting; did you mean kafka.topics?")
    assert "TILED_INGEST_KAFKA__TOPIC" in line
    assert complaint({"TILED_INGEST_KAFKA_TOPICS": "x"}).startswith("kafka_topics: unknown setting")
    assert complaint({"TILED_INGEST_BEAMLINE__X": "x"}).startswith("beamline.x: unknown setting")
    assert complaint({"TILED_INGEST_KAFKA__TOPICS__X": "x"}).startswith("kafka.topics.x: unknown setting")


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("KAFKA", "x", "kafka: is a group of settings, not a value"),
        ("KAFKA__PROPERTIES", f'{{"sasl.password": "{SECRET}"', "kafka.properties: no JSON"),
        ("TILED__ROUTES", "[", "tiled.routes: no JSON"),
        ("KAFKA__TOPICS", "a b", "kafka.topics: 'a b' is no topic name"),
        ("TILED", f'{{"api_key": ["{SECRET}"]}}', "tiled.api_key: input should be a valid string"),
    ],
)
def test_a_bad_variable_is_named_with_its_setting(variable: str, text: str, line: str) -> None:
    needed = {"kafka__topics": None} if variable == "KAFKA__TOPICS" else {}
    said = complaint({f"TILED_INGEST_{variable}": text}, **needed)
    assert said.startswith(line)
    assert said.endswith(f"(from environment TILED_INGEST_{variable})")


def test_variables_that_kubernetes_sets_are_left_alone() -> None:
    made({"TILED_INGEST_SERVICE_HOST": "10.0.0.1", "TILED_INGEST_PORT": "tcp://10.0.0.1:80"})
    made({"TILED_INGEST_PORT_80_TCP_ADDR": "10.0.0.1", "TILED_INGEST_BMM_SERVICE_PORT_HTTP": "80"})
    assert complaint({"TILED_INGEST_HTTP_PORT": "80"}).startswith("http_port: unknown setting")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"tiled: {{api_key: {SECRET}", "is no YAML (line 1)"),
        ("- a\n", "must hold names and values"),
        ("- ab\n", "must hold names and values"),
        ("5\n", "must hold names and values"),
        ("beamlin: x\n", "beamlin: unknown setting; did you mean beamline? (from file"),
        ("1: x\n", "1: unknown setting"),
        ("_given: x\n", "_given: unknown setting"),
        ("batch: 5\n", "batch: is a group of settings"),
        ("kafka: 5\n", "kafka: is a group of settings"),
        (f"tiled: {{api_key: [{SECRET}]}}\n", "tiled.api_key: input should be a valid string"),
    ],
)
def test_a_bad_file(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path, NEEDED, {})
    assert says in str(caught.value)
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--config: cannot read nowhere\.yaml: No such file"):
        load(Path("nowhere.yaml"), NEEDED, {})
    with pytest.raises(SettingsError, match=r"^--config: .* is no file"):
        load(tmp_path, NEEDED, {})


def test_the_schema_refuses_the_unknown_and_knows_secret_files() -> None:
    schema = Settings.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(group["additionalProperties"] is False for group in schema["$defs"].values())
    assert "api_key_file" in schema["$defs"]["Tiled"]["properties"]
    assert "properties_file" not in schema["$defs"]["Kafka"]["properties"]
    assert schema["$defs"]["Kafka"]["properties"]["topics"]["description"]


def test_places_of_files_are_rewritten() -> None:
    policy = made(tiled__patches='[{"match": "^/ioc/(.*)", "replace": "/mnt/\\\\1"}]').policy()
    assert policy.patches["resource"]({"root": "/ioc", "resource_path": "a.h5"})["resource_path"] == "/mnt/a.h5"
