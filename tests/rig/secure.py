"""A broker that wants TLS and a password: its listener, its certificates, its user."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tiled_ingest.demo.broker import KafkaBroker
from tiled_ingest.demo.processes import free_port

USER, PASSWORD = "ingest", "a-sentinel-7f3c1d"
_GUARD = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True)
class SecureBroker:
    """A broker with a plain listener for the harness, and one with SASL/SCRAM over TLS for the service."""

    broker: KafkaBroker
    port: int
    ca_file: Path

    @property
    def bootstrap_servers(self) -> str:
        """The address of the listener that wants TLS and a password."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_properties(self) -> dict[str, str]:
        """What a client needs to know, as librdkafka spells it; without the password."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER,
            "ssl.ca.location": str(self.ca_file),
        }


def secure_broker(folder: Path, *, expired: bool = False, guarded: bool = False) -> SecureBroker:
    """Make one, not started; `expired` is its certificate, and `guarded` it is by access lists, if so wanted.

    The harness, on the plain listener, may do everything; the user only what an access list allows.
    """
    folder.mkdir(parents=True)
    authority = trustme.CA()
    ca_file, identity = folder / "ca.pem", folder / "broker.pem"
    authority.cert_pem.write_to_path(ca_file)
    identity.write_bytes(_identity(authority, datetime.now(UTC) + timedelta(hours=-1 if expired else 1)))
    broker = KafkaBroker(
        folder / "data", format_arguments=["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
    )
    port = free_port()
    broker.properties.update(_listeners(broker, port), **_keys(identity))
    if guarded:
        broker.properties.update(_GUARD)
    return SecureBroker(broker, port, ca_file)


def _identity(authority: trustme.CA, not_after: datetime) -> bytes:
    """A key, as Java reads it (PKCS 8), and its certificate for 127.0.0.1."""
    issued = authority.issue_cert("127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=not_after)
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    spelled = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([spelled, *(part.bytes() for part in issued.cert_chain_pems)])


def _listeners(broker: KafkaBroker, port: int) -> dict[str, str]:
    places = {"PLAINTEXT": broker.port, "SASL_SSL": port, "CONTROLLER": broker.controller_port}
    addresses = {name: f"{name}://127.0.0.1:{number}" for name, number in places.items()}
    return {
        "listeners": ",".join(addresses.values()),
        "advertised.listeners": f"{addresses['PLAINTEXT']},{addresses['SASL_SSL']}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": _LOGIN,
    }


def _keys(identity: Path) -> dict[str, str]:
    return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(identity)}
