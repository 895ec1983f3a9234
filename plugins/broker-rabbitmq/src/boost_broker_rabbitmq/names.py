"""The names that queues have on the server."""

from __future__ import annotations

import functools
import hashlib
from typing import Final

LONGEST: Final = 225
"""Bytes; the server takes 255, and the queues of the delay ladder need some more than their own queue."""

_DIGEST: Final = 32


@functools.lru_cache(maxsize=4096)
def server_name(queue: str) -> str:
    """Return what a queue is called on the server: as it is, nearly always.

    ``%`` and ``~``, which are ours, and the ``a`` of ``amq.``, which is the server's, are written as in URLs. A name
    that is too long for the server ends in a digest of the whole; the queue's argument ``x-boost-queue`` has it.
    """
    name = queue.replace("%", "%25").replace("~", "%7E")
    if name.startswith("amq."):
        name = f"%61{name[1:]}"
    encoded = name.encode()
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST]
    return f"{encoded[: LONGEST - 1 - _DIGEST].decode(errors='ignore')}~{digest}"


def is_shortened(queue: str) -> bool:
    """Return whether a queue's name on the server doesn't say what it is called."""
    return "~" in server_name(queue)


def step_name(queue: str, seconds: int) -> str:
    """Return the name of the queue where messages for ``queue`` wait so many seconds; both as on the server."""
    return f"{queue}~delay~{seconds}"


def marker_name(queue: str) -> str:
    """Return the name of the queue that marks ``queue`` as young; who may configure what begins alike may make it."""
    return f"{queue}~young"
