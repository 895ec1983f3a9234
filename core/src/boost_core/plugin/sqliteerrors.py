"""What SQLite's errors mean for whoever uses a file, and what they can do."""

from __future__ import annotations

import sqlite3
from typing import Final

FIX_PATH: Final = (
    "Name a place that can be written on a local disk: BOOST_SQLITE_PATH=/path/to/file.db, or the option path."
)
FIX_LOCKED: Final = (
    "Look for a stopped or very busy process that has it open (fuser, lsof), or raise the option timeout."
)
FIX_GONE: Final = "Put it back, or start this process anew: it then uses the file that is there."
_EXPLAINED: Final[dict[str, tuple[str, str | None]]] = {
    "SQLITE_FULL": ("can't grow: the disk is full", "Free some space; nothing that was confirmed is lost."),
    "SQLITE_READONLY": ("is read-only", FIX_PATH),
    "SQLITE_CANTOPEN": ("can't be opened", FIX_PATH),
    "SQLITE_NOTADB": ("is not an SQLite database", "Move that file away, or name another one."),
    "SQLITE_CORRUPT": (
        "is damaged",
        "Move the file away and restore a copy; `sqlite3 FILE .recover` reads what can be read.",
    ),
    "SQLITE_BUSY": ("is kept locked by another program", FIX_LOCKED),
    "SQLITE_IOERR": ("can't be read or written: the disk reports an error", "Look at the system's log."),
}
DAMAGED: Final = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR"}
"""Errors after which a connection is of no use any more."""


def primary_name(error: sqlite3.Error) -> str:
    """Return SQLite's primary name of an error: ``SQLITE_IOERR_WRITE`` is ``SQLITE_IOERR``."""
    return "_".join(getattr(error, "sqlite_errorname", "SQLITE_ERROR").split("_")[:2])


def explain(error: sqlite3.Error) -> tuple[str, str | None]:
    """Return what is wrong with a file, and the remedy where there is one."""
    return _EXPLAINED.get(primary_name(error), (f"fails: {error}", None))
