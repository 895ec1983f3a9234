"""Whole-file locks that the kernel frees when their process dies."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; SqliteFile.open says so
    fcntl = None  # type: ignore[assignment]

HAVE_FLOCK = fcntl is not None


def try_flock(path: Path) -> int | None:
    """Return the descriptor of the locked file, made (mode 0600) if need be; None if somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        locked = lock(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not locked:
        os.close(descriptor)
        return None
    return descriptor


def lock(descriptor: int) -> bool:
    """Take the exclusive lock if it is free; return whether it was."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give the lock back."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
