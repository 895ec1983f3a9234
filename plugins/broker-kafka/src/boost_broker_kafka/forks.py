"""Clients of librdkafka in a forked child, where their threads don't run."""

from __future__ import annotations

import ctypes
from typing import Any


def keep(*clients: Any) -> None:
    """Have clients never be freed: their destructors would wait for threads that this process doesn't have."""
    for client in clients:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
