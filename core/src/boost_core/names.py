"""Which names tasks and queues may have."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from boost_core.errors import BadName

LONGEST: Final = 180
DEAD_SUFFIX: Final = ".dead"
_PORTABLE: Final = re.compile(r"[A-Za-z0-9._-]+")


def check_name(what: str, name: str) -> str:
    """Return ``name`` if a task or queue can have it; raise ``BadName`` that says why not.

    Any text of 1 to 180 characters without control characters and outer blanks will do. What isn't
    portable (``[A-Za-z0-9._-]``) is escaped by brokers that need it, reversibly.
    """
    if not isinstance(name, str):
        raise BadName(what, name, f"is no text but {type(name).__name__}; give 1 to {LONGEST} characters.")
    problem = _problem(what, name)
    if problem:
        raise BadName(what, name, problem)
    return name


def _problem(what: str, name: str) -> str | None:
    if not name:
        return f"is empty; give 1 to {LONGEST} characters."
    if len(name) > LONGEST:
        return f"is {len(name)} characters long; at most {LONGEST} are allowed."
    if name != name.strip():
        return "begins or ends with a blank; remove it."
    if not _PORTABLE.fullmatch(name):
        bad = next((char for char in name if unicodedata.category(char) in ("Cc", "Cs")), None)
        if bad is not None:
            return f"contains the character {bad!r}; control characters and lone surrogates are not allowed."
    if what == "queue" and name.endswith(DEAD_SUFFIX):
        return f"ends with {DEAD_SUFFIX!r}, which is kept for dead letters; choose another."
    return None
