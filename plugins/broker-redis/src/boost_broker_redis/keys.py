"""Names of keys."""

from __future__ import annotations

import urllib.parse
from functools import lru_cache
from typing import Final

_DEAD: Final = ".dead"


@lru_cache(1024)
def stem(layout: str, queue: str) -> str:
    """Return what the keys of a queue begin with: ``boost:{mail}:`` and, of its dead letters, ``boost:{mail}.dead:``.

    The braces hold the part that places keys in a cluster: a queue is in one slot, and its dead letters with it. Any
    character beyond ``A-Z a-z 0-9 . _ - ~`` is escaped as in URLs.
    """
    name, dead = (queue[: -len(_DEAD)], _DEAD) if queue.endswith(_DEAD) and queue != _DEAD else (queue, "")
    return f"{layout}:{{{urllib.parse.quote(name, safe='')}}}{dead}:"


def registry(layout: str) -> str:
    """Return the key of the set of all queues' names."""
    return f"{layout}:queues"


def channel(worker: str) -> str:
    """Return the channel on which a worker is woken."""
    return f"boost:wake:{worker}"
