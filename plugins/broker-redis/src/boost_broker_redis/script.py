"""The scripts that the server runs: one an operation, put together from what its layout's file in ``lua`` defines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import attrs

_FOLDER: Final = Path(__file__).with_name("lua")
_DEFINED: Final = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.MULTILINE)
_WORD: Final = re.compile(r"\w+")
_COMMENT: Final = re.compile(r"--.*")


@attrs.frozen
class Call:
    """One run of an operation: its name, the stems of queues' keys, and its arguments."""

    operation: str
    keys: Sequence[str]
    arguments: Sequence[Any] = ()


@attrs.frozen
class Script:
    """One operation's script and its hash, by which a server that has seen it knows it."""

    source: str
    sha: str

    def by_hash(self, call: Call) -> tuple[Any, ...]:
        """Return the command that runs it where the server knows it."""
        return ("EVALSHA", self.sha, len(call.keys), *call.keys, call.operation, *call.arguments)

    def whole(self, call: Call) -> tuple[Any, ...]:
        """Return the command that makes it known and runs it."""
        return ("EVAL", self.source, len(call.keys), *call.keys, call.operation, *call.arguments)


@cache
def script_of(layout: str, operation: str) -> Script:
    """Return the script of an operation of a layout: its function, called, and what that needs.

    Whatever a script defines is made anew each time it runs, which takes longer than most operations.
    """
    blocks = _blocks(layout)
    needed = {operation}
    for block in reversed(blocks):  # what is used is defined before
        if needed & block.names:
            needed |= block.words
    chosen = [block.text for block in blocks if needed & block.names]
    source = "\n".join([*chosen, f"return {operation}()"])
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@attrs.frozen
class _Block:
    """What is defined between two blank lines: the names, and the words in it."""

    text: str
    names: frozenset[str]
    words: frozenset[str]


@cache
def _blocks(layout: str) -> Sequence[_Block]:
    texts = [(_FOLDER / f"{name}.lua").read_text(encoding="utf-8") for name in ("common", layout, "storing")]
    return [_block(_COMMENT.sub("", part)) for text in texts for part in text.split("\n\n")]


def _block(text: str) -> _Block:
    names = frozenset(name for found in _DEFINED.findall(text) for name in found.split(", "))
    return _Block(text.strip(), names, frozenset(_WORD.findall(text)))
