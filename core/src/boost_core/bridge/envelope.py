r"""Bodies. A message is ``<codec>\n<payload>``, a dead letter ``<codec> <header length>\n<header><original body>``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from boost_core.contracts.codec import Codec
from boost_core.errors import BoostError, DecodeError
from boost_core.types import DeadLetter, Message

_LONGEST_TAG: Final = 32

CodecOf = Callable[[str], Codec]
"""Returns the installed codec of a name, or raises ``CodecNotFound`` or ``PluginBroken``."""


def wrap_payload(tag: str, payload: bytes) -> bytes:
    """Return the body of a payload that the codec ``tag`` made."""
    return b"%b\n%b" % (tag.encode(), payload)


class Opener:
    """Reads bodies of any installed codec; what each codec decodes with is kept, since this runs per message."""

    def __init__(self, codec_of: CodecOf) -> None:
        self._codec_of = codec_of
        self._decoders: dict[bytes, Callable[[bytes], Message]] = {}

    def open(self, body: bytes | memoryview) -> Message:
        """Return the envelope in ``body``. Raises ``DecodeError``."""
        data = body if type(body) is bytes else bytes(body)
        end = data.find(b"\n", 0, _LONGEST_TAG)
        decode = self._decoders.get(data[:end])
        if decode is None:
            tag, _ = _split(data)
            decode = self._decoders[tag.encode()] = _codec(tag, self._codec_of).decode_message
        return decode(data[end + 1 :])


def wrap_dead(tag: str, header: bytes, original: bytes | memoryview) -> bytes:
    """Return the body of a dead letter; the original bytes stand in it as they are given."""
    return b"".join((b"%b %d\n" % (tag.encode(), len(header)), header, original))


def open_dead(body: bytes | memoryview, codec_of: CodecOf) -> DeadLetter:
    """Return the dead letter in ``body``. Raises ``DecodeError``."""
    tag, payload = _split(body)
    name, _, length = tag.partition(" ")
    if not length.isdigit():
        message = f"the body is no dead letter of boost: it starts with {tag!r}"
        raise DecodeError(message)
    letter = _codec(name, codec_of).decode_dead(payload[: int(length)])
    letter.body = payload[int(length) :]
    return letter


def _split(body: bytes | memoryview) -> tuple[str, bytes]:
    data = bytes(body)
    end = data.find(b"\n", 0, _LONGEST_TAG)
    tag = data[:end] if end > 0 else b""
    if not tag or not tag.isascii():
        message = f"the body is no message of boost: it starts with {data[:24]!r} instead of a codec's name"
        raise DecodeError(message)
    return tag.decode(), data[end + 1 :]


def _codec(tag: str, codec_of: CodecOf) -> Codec:
    try:
        return codec_of(tag)
    except BoostError as error:  # not installed, disabled or broken
        raise DecodeError(str(error)) from error
