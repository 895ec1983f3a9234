"""The scripts that the server runs: one a layout, in the folder ``lua``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs

_FOLDER: Final = Path(__file__).with_name("lua")


@attrs.frozen
class Script:
    """One script and its hash, by which a server that has seen it knows it."""

    source: str
    sha: str

    @classmethod
    @cache
    def of(cls, layout: str) -> Script:
        """Return the script of a layout: what both share, and its own."""
        source = "\n".join((_FOLDER / f"{name}.lua").read_text(encoding="utf-8") for name in ("common", layout))
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def by_hash(self, call: Call) -> tuple[Any, ...]:
        """Return the command that runs it where the server knows it."""
        return ("EVALSHA", self.sha, len(call.keys), *call.keys, *call.arguments)

    def whole(self, call: Call) -> tuple[Any, ...]:
        """Return the command that makes it known and runs it."""
        return ("EVAL", self.source, len(call.keys), *call.keys, *call.arguments)


@attrs.frozen
class Call:
    """One run of a script: stems of queues' keys, and an operation with its arguments."""

    keys: Sequence[str]
    arguments: Sequence[Any]
