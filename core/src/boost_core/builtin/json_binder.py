"""Arguments and results of one function, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from boost_core.builtin.json_check import Misfit
from boost_core.builtin.json_shape import Shape, decoder, encode
from boost_core.builtin.json_signature import CallSignature
from boost_core.contracts.codec import Binder
from boost_core.errors import BadArgument, DecodeError
from boost_core.types import Message

_NO_KWARGS: Final = b"{}"
_NO_RAW_KWARGS: Final = msgspec.Raw(_NO_KWARGS)
_NULL: Final = b"null"

_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_raw_dict: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class JsonBinder(Binder):
    """Compiled for one function. An argument of a certain exact type goes straight to the encoder; others are tried."""

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        self._signature = CallSignature(task, function)
        self._accepts = [shape.accepts for shape in self._signature.shapes]
        counts = [count for count in range(len(self._accepts) + 1) if self._signature.fits(count, ())]
        self._by_count = {count: _tuple_decoder(self._signature.shapes[:count]) for count in counts}
        self._only = self._by_count[counts[0]] if len(counts) == 1 and self._signature.extra is None else None
        self._result = self._signature.result

    # --- arguments, going out ------------------------------------------------------------------------

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes]:
        if kwargs or len(args) not in self._by_count:
            self._signature.check(len(args), kwargs.keys())
        return self._encode_args(args), self._encode_kwargs(kwargs) if kwargs else _NO_KWARGS

    def _encode_args(self, args: Sequence[Any]) -> bytes:
        if len(args) <= len(self._accepts):
            for value, accepts in zip(args, self._accepts):  # noqa: B905 - a call may have fewer
                if type(value) not in accepts:
                    break
            else:
                try:
                    return encode(args)
                except (ValueError, OverflowError):  # a number or text beyond JSON: find out whose
                    pass
        return encode([self._carried(value, *self._signature.at(index)) for index, value in enumerate(args)])

    def _encode_kwargs(self, kwargs: Mapping[str, Any]) -> bytes:
        by_name = self._signature.by_name
        return encode({name: self._carried(value, name, by_name(name)) for name, value in kwargs.items()})

    def _carried(self, value: Any, name: str, shape: Shape) -> msgspec.Raw:
        try:
            return msgspec.Raw(shape.carry(value))
        except Misfit as misfit:
            raise BadArgument(self._task, name, f"{misfit}.") from misfit.__cause__

    # --- arguments, coming in ------------------------------------------------------------------------

    def decode(self, message: Message) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if message.kwargs == _NO_RAW_KWARGS:
            args = message.args
            try:
                return (self._only or self._by_count[len(_raw_list(args))])(args), {}
            except Exception:  # noqa: S110 - below finds out what is wrong, and with which argument
                pass
        return self._decode_each(message)

    def _decode_each(self, message: Message) -> tuple[Sequence[Any], Mapping[str, Any]]:
        args, kwargs = self._split(message)
        try:
            self._signature.check(len(args), kwargs.keys())
        except TypeError as error:
            problem = f"task {self._task!r}: the message's arguments don't fit the function: {error}"
            raise DecodeError(problem) from error
        by_name, at = self._signature.by_name, self._signature.at
        named = {name: self._decoded(raw, name, by_name(name)) for name, raw in kwargs.items()}
        return [self._decoded(raw, *at(index)) for index, raw in enumerate(args)], named

    def _split(self, message: Message) -> tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]:
        try:
            return _raw_list(message.args), _raw_dict(message.kwargs)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            problem = f"task {self._task!r}: the message's arguments can't be read: {error}"
            raise DecodeError(problem) from error

    def _decoded(self, raw: msgspec.Raw, name: str, shape: Shape) -> Any:
        try:
            return shape.decode(raw)
        except Exception as error:
            problem = f"task {self._task!r}, argument {name!r}: {_shown(error)}"
            raise DecodeError(problem) from error

    # --- results -----------------------------------------------------------------------------------

    def encode_value(self, value: Any) -> bytes:
        shape = self._result
        if value is None and type(None) in shape.accepts:
            return _NULL
        try:
            return shape.carry(value)
        except Misfit as misfit:
            problem = f"task {self._task!r}, return value: {misfit}."
            raise TypeError(problem) from misfit.__cause__

    def decode_value(self, data: bytes) -> Any:
        try:
            return self._result.decode(data)
        except Exception as error:
            problem = f"task {self._task!r}, return value: {_shown(error)}"
            raise DecodeError(problem) from error


def _tuple_decoder(shapes: Sequence[Shape]) -> Callable[[Any], Any]:
    return decoder(tuple[tuple(shape.annotation for shape in shapes)] if shapes else tuple[()])  # type: ignore[misc]


def _shown(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.replace("`$", "`value").replace(" - at ", " at ")
