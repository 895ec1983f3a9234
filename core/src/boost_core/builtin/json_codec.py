"""Codec ``json``: envelopes, arguments and results as JSON, by the annotations of the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from boost_core.builtin.json_binder import JsonBinder
from boost_core.contracts.codec import Binder, Codec
from boost_core.errors import DecodeError
from boost_core.types import ENVELOPE_VERSION, DeadLetter, Message

T = TypeVar("T", Message, DeadLetter)

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for bodies that are broken, of another form, too deep, or beyond any number."""


class _Versioned(msgspec.Struct):
    v: int


_encode: Final = msgspec.json.Encoder().encode
_decode_message: Final = msgspec.json.Decoder(Message).decode
_decode_dead: Final = msgspec.json.Decoder(DeadLetter).decode
_decode_version: Final = msgspec.json.Decoder(_Versioned).decode


class JsonCodec(Codec):
    """JSON by msgspec: what is annotated comes back as itself, and what JSON would change is refused at push."""

    def bind(self, task: str, function: Callable[..., Any]) -> Binder:
        return JsonBinder(task, function)

    def encode_message(self, message: Message) -> bytes:
        return _encode(message)

    def decode_message(self, payload: bytes | memoryview) -> Message:
        return _decoded("message", payload, _decode_message)

    def encode_dead(self, letter: DeadLetter) -> bytes:
        return _encode(letter)

    def decode_dead(self, payload: bytes | memoryview) -> DeadLetter:
        return _decoded("dead letter", payload, _decode_dead)


def _decoded(what: str, payload: bytes | memoryview, decode: Callable[[bytes], T]) -> T:
    # A message's arguments stay undecoded views of the payload: so it must be bytes that nobody changes.
    data = payload if type(payload) is bytes else bytes(payload)
    try:
        envelope = decode(data)
    except _UNREADABLE as error:
        _check_version(what, _version(data))
        message = f"the body is no {what} of boost: {error}"
        raise DecodeError(message) from error
    _check_version(what, envelope.v)
    return envelope


def _version(data: bytes) -> int:
    """Return the version that a body states, whatever else stands in it; this code's own where it states none."""
    try:
        return _decode_version(data).v
    except _UNREADABLE:
        return ENVELOPE_VERSION


def _check_version(what: str, version: int) -> None:
    if version > ENVELOPE_VERSION:
        message = f"the {what} is of version {version}; this worker reads up to version {ENVELOPE_VERSION}. Upgrade it."
        raise DecodeError(message, newer=True)
    if version < 1:
        message = f"the body is no {what} of boost: its version is {version}"
        raise DecodeError(message)
