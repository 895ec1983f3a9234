"""What the topics of a queue are called.

A queue's name is its topic's wherever Kafka takes it. Any other one stands behind ``q--`` as UTF-8, with ``-2F`` for a
slash and so on; a name that would be too long that way is cut, and ends in a digest. The topic of a queue's delayed
messages has ``-delay`` behind.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

DELAY: Final = "-delay"
LONGEST: Final = 249 - len(DELAY)

_ESCAPED: Final = "q--"
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._]")
_PORTABLE: Final = re.compile(r"[A-Za-z0-9._-]+")
_DIGEST_LENGTH: Final = 40


def topic_of(queue: str) -> str:
    """Return the topic of a queue; no two queues share one, nor is it the delay topic of another."""
    if (
        _PORTABLE.fullmatch(queue)
        and len(queue) <= LONGEST
        and queue not in (".", "..")
        and not queue.startswith(_ESCAPED)
        and not queue.endswith(DELAY)
    ):
        return queue
    escaped = _ESCAPED + "".join(map(_escaped, queue.encode()))
    if len(escaped) <= LONGEST:
        return escaped
    digest = hashlib.sha256(queue.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{escaped[: LONGEST - _DIGEST_LENGTH - 2]}--{digest}"


def delay_topic(queue: str) -> str:
    """Return the topic of a queue's delayed messages."""
    return topic_of(queue) + DELAY


def _escaped(byte: int) -> str:
    return chr(byte) if _PLAIN.fullmatch(bytes([byte])) else f"-{byte:02X}"
