"""The options, in the words of librdkafka."""

from __future__ import annotations

import logging
from typing import Any, Final

from boost_broker_kafka.plugin import KafkaOptions

OVERHEAD: Final = 4096
"""What a record has beside its body: key, headers, and the batch that it is sent in."""

HEARTBEAT: Final = 2.0
"""A worker hears this late, at most, that another one came or went; it beats three times a session at least."""

_SHORTEST_POLL_INTERVAL: Final = 300.0


def heartbeat(options: KafkaOptions) -> float:
    """Return the seconds between two heartbeats of a worker: who stood still for longer may have been given up."""
    return min(HEARTBEAT, options.session_timeout / 3)


def client_config(options: KafkaOptions) -> dict[str, Any]:
    """Return what every client needs: where the servers are, how to log in, and how long to wait."""
    address = options.address
    patience = _ms(max(options.timeout, 1.0) + 1)  # whoever waits gives up before, and says that nobody answered
    protocol = f"{'SASL_' if address.username else ''}{'SSL' if address.tls else 'PLAINTEXT'}"
    config: dict[str, Any] = {
        "bootstrap.servers": address.servers,
        "client.id": "boost",
        "security.protocol": protocol,
        "socket.timeout.ms": patience,
        "socket.connection.setup.timeout.ms": patience,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 5000,  # or a new partition is seen in five minutes
        "topic.metadata.propagation.max.ms": 3000,  # topics are made before they are used
        "log_level": 0,  # what goes wrong comes through error_cb, but for what is fatal
        "logger": logging.getLogger("boost.broker.kafka"),
    }
    if address.username and address.password:
        config |= {
            "sasl.mechanism": options.mechanism,
            "sasl.username": address.username,
            "sasl.password": address.password.reveal(),
        }
    files = {"ssl.ca.location": options.ca_file, "ssl.certificate.location": options.cert_file}
    files["ssl.key.location"] = options.key_file
    config |= {name: path for name, path in files.items() if path is not None}
    return config | {name: value.reveal() for name, value in options.client}


def producer_config(options: KafkaOptions) -> dict[str, Any]:
    """Return what the producer needs: every message stored by all in-sync copies, once, in order."""
    return client_config(options) | {
        "enable.idempotence": True,
        "acks": "all",
        "delivery.timeout.ms": _ms(options.timeout),
        "message.max.bytes": options.max_body + OVERHEAD,
        "partitioner": "murmur2_random",  # the Java client's: a key's partition is the same whoever writes
    }


def consumer_config(options: KafkaOptions) -> dict[str, Any]:
    """Return what the consumer needs: partitions change hands one by one, and nothing is committed by itself."""
    return client_config(options) | {
        "group.id": options.group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": _ms(options.session_timeout),
        "heartbeat.interval.ms": _ms(heartbeat(options)),
        "max.poll.interval.ms": _ms(max(_SHORTEST_POLL_INTERVAL, options.handover + options.session_timeout + 60)),
        "fetch.wait.max.ms": 500,
        "fetch.queue.backoff.ms": 20,  # or a drained queue is filled again once a second
        "queued.min.messages": 1000,
        "queued.max.messages.kbytes": 16 * 1024,
    }


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
