"""Kafka's access lists: rules, and a broker on which they are put."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)


def rule(
    kind: ResourceType,
    name: str,
    operation: AclOperation,
    permission: AclPermissionType,
    user: str = "ANONYMOUS",
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(kind, name, pattern, f"User:{user}", "*", operation, permission)


def impose(servers: str, rules: Sequence[AclBinding]) -> None:
    """Put rules on a broker; returns when it has them."""
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.create_acls(list(rules)).values():
        future.result(20)
