"""How a consumer leaves its group at once."""

from __future__ import annotations

import logging
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException

log = logging.getLogger("boost.broker.kafka")

GOODBYE_SECONDS: Final = 2.0
"""How long an end may take where no server answers: a service manager waits for it."""

_LEAVE_SECONDS: Final = 1.0
_TICK: Final = 0.02


def leave(consumer: Consumer) -> None:
    """Leave the group, or the others wait for our session to end: closing alone leaves a named member in it."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    try:
        consumer.unsubscribe()
        while consumer.memberid() and time.monotonic() < deadline:
            consumer.poll(_TICK)
    except KafkaException as error:
        log.debug("the group hears of the end when the session ends: %s", error)
