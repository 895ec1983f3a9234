"""Whether the connection to a broker stands."""

from __future__ import annotations

import logging
import time

from boost_core.errors import ConnectionLost
from boost_core.native import Lock

log = logging.getLogger("boost.worker")


class Link:
    """Told of a lost connection by whichever thread notices, and of the new one by the fetch thread. Says each once."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._lock = Lock()
        self._down_since: float | None = None

    @property
    def down(self) -> bool:
        """True from the loss of the connection until there is a new one."""
        return self._down_since is not None

    def lost(self, error: ConnectionLost) -> None:
        """Take note that the connection is gone."""
        with self._lock:
            if self._down_since is None:
                self._down_since = time.monotonic()
                log.warning("%s: dialling again; settling waits", error)

    def restored(self) -> None:
        """Take note that there is a new one."""
        with self._lock:
            since, self._down_since = self._down_since, None
        if since is not None:
            log.warning("broker %s is back after %.1f s", self._broker, time.monotonic() - since)
