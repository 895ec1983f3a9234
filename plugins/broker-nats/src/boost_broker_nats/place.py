"""Where a queue lives on the server: the names of its stream and subjects."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import attrs

CONSUMER: Final = "workers"
"""The durable consumer of each stream, which all workers of the queue share."""

STREAMS: Final = "boost_"
SUBJECTS: Final = "boost."

_LONGEST: Final = 200  # the server takes names of 255 characters, as its file system does
_DIGEST: Final = 32


class _Escapes(dict[int, str]):
    """What ``str.translate`` writes for a character; learnt as they come."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = (char.isascii() and char.isalnum()) or char in "_-"
        text = char if plain else "+" if char == "." else "".join(f"={byte:02X}" for byte in _bytes(char))
        return self.setdefault(code, text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # ids are anybody's text


_ESCAPES: Final = _Escapes()


def escape(text: str) -> str:
    """Return text as a token that streams, subjects and headers take: ``mail.send`` is ``mail+send``.

    Other characters are ``=XX``, a byte each. What gets too long ends in ``==`` and a digest instead; the whole name of
    a queue is its stream's description.
    """
    token = text.translate(_ESCAPES)
    if len(token) <= _LONGEST:
        return token
    digest = hashlib.sha256(_bytes(text)).hexdigest()[:_DIGEST]
    return f"{token[: _LONGEST - _DIGEST - 2]}=={digest}"


@attrs.frozen
class Place:
    """A queue's stream, the subject of its jobs, and what the subjects of those that are due later begin with."""

    stream: str
    jobs: str
    later: str

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, queue: str) -> Place:
        """Return the place of a queue."""
        token = escape(queue)
        return cls(STREAMS + token, f"{SUBJECTS}{token}.job", f"{SUBJECTS}{token}.later.")
