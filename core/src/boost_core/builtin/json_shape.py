"""How the value of one parameter, or a result, travels: by its annotation, or by the plain rules without one."""

from __future__ import annotations

import datetime
import typing
import uuid
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, Final

import msgspec
from msgspec import inspect as hints

from boost_core.builtin.json_check import ATOMS, Misfit, TooDeep, check_finite, check_plain, check_same

_ANYTHING: Final = (Any, object, typing.NoReturn, typing.Never)

# Values of exactly these types come back as they were; all others are tried out at each push.
_CERTAIN: Final[dict[type[hints.Type], type]] = {
    hints.NoneType: type(None),
    hints.BoolType: bool,
    hints.IntType: int,
    hints.StrType: str,
    hints.BytesType: bytes,
    hints.DateType: datetime.date,
    hints.UUIDType: uuid.UUID,
}


class Shape:
    """What travels without an annotation: None, bool, int, finite float, str, list and dict with str keys.

    ``accepts`` are the exact types that need no further look.
    """

    def __init__(self) -> None:
        self.annotation: Any = Any
        self.accepts: frozenset[type] = ATOMS
        self.decode: Callable[[Any], Any] = msgspec.json.decode

    def carry(self, value: Any) -> bytes:
        """Return the value's bytes. Raises ``Misfit`` where it wouldn't come back as it is."""
        check_plain(value)
        return _encoded(value)


class AnnotatedShape(Shape):
    """What travels by an annotation. Raises ``TypeError`` for one that can't be carried."""

    def __init__(self, annotation: Any) -> None:
        info = hints.type_info(annotation)
        for custom in _customs(info, set()):
            if not (custom is object or issubclass(custom, PurePath)):
                message = f"{custom.__qualname__} is no type that JSON can stand for"
                raise TypeError(message)
        self.annotation = annotation
        self.accepts = frozenset(_certain(info))
        self.decode = decoder(annotation)

    def carry(self, value: Any) -> bytes:
        """Return the value's bytes, once it is proven that they decode to the same."""
        data = _encoded(value)
        try:
            back = self.decode(data)
        except Exception as error:  # whatever it is: the user's own classes take part in decoding
            check_finite(value)
            problem = str(error).replace("`$", "`value").replace(" - at ", " at ")
            raise Misfit(f"doesn't fit its annotation: {problem}") from error
        try:
            check_same(value, back)
        except Misfit:
            check_finite(value)  # the better reason, where it is one
            raise
        return data


class ImpossibleShape(Shape):
    """A result that can't be carried by its annotation; it matters only once a result is to be stored."""

    def __init__(self, problem: str) -> None:
        super().__init__()
        self._problem = problem
        self.accepts = frozenset()

    def carry(self, value: Any) -> bytes:
        """Raise the ``Misfit``."""
        raise Misfit(self._problem)


def shape_of(annotation: Any) -> Shape:
    """Return the shape of a resolved annotation. Raises ``TypeError`` for one that can't be carried."""
    if annotation in _ANYTHING or isinstance(annotation, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
        return Shape()
    return AnnotatedShape(annotation)


def decoder(annotation: Any) -> Callable[[Any], Any]:
    """Return a compiled ``decode(bytes)`` for an annotation."""
    return msgspec.json.Decoder(annotation, dec_hook=_from_json).decode


def _encoded(value: Any) -> bytes:
    try:
        return encode(value)
    except RecursionError:
        raise TooDeep from None
    except UnicodeEncodeError as error:
        message = f"contains text with a lone surrogate ({error.object[error.start]!r}), which is not valid Unicode"
        raise Misfit(message) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise Misfit(f"can't be encoded: {error}") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    message = f"type {type(value).__qualname__} has no form in JSON"
    raise TypeError(message)


def _from_json(wanted: type, value: Any) -> Any:
    return value if wanted is object else wanted(value)


encode: Final = msgspec.json.Encoder(enc_hook=_to_json).encode


def _customs(info: Any, seen: set[int]) -> Iterator[type]:
    """Yield the classes in a described type that msgspec knows nothing of."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, hints.CustomType):
        yield info.cls
    elif isinstance(info, tuple):
        for item in info:
            yield from _customs(item, seen)
    elif isinstance(info, (hints.Type, hints.Field)):
        for name in info.__struct_fields__:
            yield from _customs(getattr(info, name), seen)


def _certain(info: hints.Type) -> Iterator[type]:
    for member in info.types if isinstance(info, hints.UnionType) else (info,):
        bounds = [getattr(member, name) for name in member.__struct_fields__]
        if type(member) in _CERTAIN and all(bound is None for bound in bounds):
            yield _CERTAIN[type(member)]
