"""The contract of codecs: envelopes, arguments and values to bytes and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from boost_core.types import DeadLetter, Message


class Binder:
    """Encodes and decodes the arguments of one function, by its signature and annotations."""

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return encoded positional and keyword arguments.

        Publisher's thread. Raises ``BadArgument`` naming the parameter; ``TypeError`` where the
        arguments don't fit the signature, with Python's own wording.
        """
        raise NotImplementedError

    def decode(self, message: Message) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments as the function takes them. Pool's world. Raises ``DecodeError``."""
        raise NotImplementedError

    def encode_value(self, value: Any) -> bytes:
        """Return a result's bytes. Pool's world. Raises ``TypeError`` or ``ValueError`` where it can't be carried."""
        raise NotImplementedError

    def decode_value(self, data: bytes) -> Any:
        """Return a result as the return annotation says. Raises ``DecodeError``."""
        raise NotImplementedError


class Codec:
    """Turns envelopes into payloads and back. Core puts the codec's name before each payload."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def bind(self, task: str, function: Callable[..., Any]) -> Binder:
        """Return the compiled binder of a function. Once a task. Raises ``BadOption`` for impossible annotations."""
        raise NotImplementedError

    def encode_message(self, message: Message) -> bytes:
        """Return an envelope's payload. Publisher's and settle thread, per message."""
        raise NotImplementedError

    def decode_message(self, payload: bytes | memoryview) -> Message:
        """Return an envelope with its arguments still encoded. FETCH thread. Raises ``DecodeError``."""
        raise NotImplementedError

    def encode_dead(self, letter: DeadLetter) -> bytes:
        """Return a dead letter's payload."""
        raise NotImplementedError

    def decode_dead(self, payload: bytes | memoryview) -> DeadLetter:
        """Return a dead letter. Raises ``DecodeError``."""
        raise NotImplementedError
