"""What an administrator may do to a topic while it is read."""

import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

CREATE_LIMIT_S = 20.0


def recreate(servers: str, topic: str, partitions: int = 1) -> None:
    """Delete a topic and create it again under its name; returns when it is there."""
    admin = AdminClient({"bootstrap.servers": servers})
    admin.delete_topics([topic])[topic].result(20)
    until_s = time.monotonic() + CREATE_LIMIT_S
    while True:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
        except ck.KafkaException as error:  # the old one is still on its way out
            if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return


def add_partitions(servers: str, topic: str, partitions: int) -> None:
    """Let a topic have so many partitions from now on."""
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)
