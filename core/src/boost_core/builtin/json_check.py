"""What JSON would change or can't hold: found before it is sent, with its place and the remedy."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, Final

import attrs
import msgspec

DEEPEST: Final = 64
"""How many levels of lists, dicts and objects a value may have."""

ATOMS: Final = frozenset({type(None), bool, int, str})
"""The types that come back as they were whatever the annotation is."""

_COMPARED: Final = ATOMS | {float, bytes}
_SUBCLASSED: Final = (bool, int, float, str, list, dict)


class Misfit(Exception):
    """A value can't be carried. ``problem`` is a clause about it; ``path`` leads to it from the outermost value."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"value{''.join(reversed(self.path))} {self.problem}"

    def at(self, step: str) -> Misfit:
        """Return this misfit, seen from one level further out."""
        self.path.append(step)
        return self


class TooDeep(Misfit):
    """A value is nested too deep, or endlessly; its path says nothing."""

    def __init__(self) -> None:
        super().__init__(f"is nested deeper than {DEEPEST} levels, or contains itself")

    def at(self, step: str) -> Misfit:
        """Return itself."""
        return self


# --- without an annotation ------------------------------------------------------------------------------


def check_plain(value: Any, level: int = 1) -> None:
    """Raise ``Misfit`` unless the value is made of None, bool, int, finite float, str, list and str-keyed dict only."""
    kind = type(value)
    if kind in ATOMS:
        return
    if kind is float:
        if not math.isfinite(value):
            raise _not_finite(value)
    elif kind is list:
        _check_items(value, enumerate(value), level)
    elif kind is dict:
        for key in value:
            if type(key) is not str:
                raise _bad_key(key)
        _check_items(value.values(), value.items(), level)
    else:
        raise _foreign(value)


def _check_items(items: Any, steps: Any, level: int) -> None:
    if level > DEEPEST:
        raise TooDeep
    if ATOMS.issuperset(map(type, items)):  # the usual case, at the speed of C
        return
    for step, item in steps:
        try:
            check_plain(item, level + 1)
        except Misfit as misfit:
            raise misfit.at(f"[{step!r}]") from None


def _not_finite(value: float) -> Misfit:
    return Misfit(f"is {value}, a number that JSON doesn't have; give None or text instead")


def _bad_key(key: Any) -> Misfit:
    return Misfit(
        f"has a key of type {_name(type(key))}; without an annotation keys are str: "
        f"annotate it (such as dict[int, str]), or give str keys"
    )


def _foreign(value: Any) -> Misfit:
    kind = type(value)
    if isinstance(value, PurePath):
        return Misfit(f"is of type {_name(kind)}; annotate it as Path, or give str(path)")
    if isinstance(value, enum.Enum):
        return Misfit(f"is of type {_name(kind)}; annotate it as {kind.__name__}, or give its .value")
    for base in _SUBCLASSED:
        if isinstance(value, base):
            return Misfit(f"is of type {_name(kind)} and would come back as {base.__name__}; give {base.__name__}(...)")
    if isinstance(value, tuple):
        return Misfit(f"is of type {_name(kind)} and would come back as list; annotate it, or give a list")
    return Misfit(
        f"is of type {_name(kind)}; without an annotation only None, bool, int, float, str, list and dict are carried: "
        f"annotate it with its type, or convert it"
    )


def _name(kind: type) -> str:
    return kind.__qualname__.rpartition("<locals>.")[2]


# --- with an annotation ---------------------------------------------------------------------------------


def check_same(given: Any, back: Any, level: int = 1) -> None:
    """Raise ``Misfit`` unless ``back``, as decoded by the annotation, is what was given: types, fields and items."""
    kind = type(given)
    if kind is int and type(back) is float and given == back:
        return  # an int is a float's equal, as for type checkers
    if kind is not type(back):
        raise Misfit(
            f"is of type {_name(kind)}, but would come back as {_name(type(back))}; give that, or annotate it as it is"
        )
    if kind in _COMPARED:
        if given != back:
            raise _changed(kind)
        return
    if level > DEEPEST:
        raise TooDeep
    _check_same_parts(given, back, level)


def _check_same_parts(given: Any, back: Any, level: int) -> None:
    kind = type(given)
    if isinstance(given, (list, tuple)):
        _check_same_items(given, back, level)
    elif isinstance(given, dict):
        _check_same_keys(given, back)
        _check_each(((f"[{key!r}]", given[key], back[key]) for key in given), level)
    elif isinstance(given, (set, frozenset)):
        _check_same_sets(given, back, level)
    elif names := field_names(kind):
        _check_each(((f".{name}", getattr(given, name, None), getattr(back, name, None)) for name in names), level)
    elif not _equal(given, back):
        raise _changed(kind)


def _check_same_items(given: Any, back: Any, level: int) -> None:
    if len(given) != len(back):
        raise _changed(type(given))
    kinds = list(map(type, given))
    if _COMPARED.issuperset(kinds) and kinds == list(map(type, back)) and given == back:
        return
    _check_each(((f"[{index}]", *pair) for index, pair in enumerate(zip(given, back, strict=True))), level)


def _check_same_keys(given: Any, back: Any) -> None:
    if list(map(type, given)) != list(map(type, back)) or given.keys() != back.keys():
        problem = "has keys that would come back changed or not at all; annotate the type of its keys"
        raise Misfit(problem)


def _check_same_sets(given: Any, back: Any, level: int) -> None:
    if given != back:
        raise _changed(type(given))
    originals = {item: item for item in back}
    _check_each((("", item, originals[item]) for item in given), level)


def _check_each(steps: Iterator[tuple[str, Any, Any]], level: int) -> None:
    for step, given, back in steps:
        try:
            check_same(given, back, level + 1)
        except Misfit as misfit:
            raise misfit.at(step) from None


def _changed(kind: type) -> Misfit:
    return Misfit(f"is of type {_name(kind)} and would come back changed")


def _equal(given: Any, back: Any) -> bool:
    try:
        return bool(given == back)
    except Exception:
        return False


def _field_names(kind: type) -> tuple[str, ...]:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if attrs.has(kind):
        return tuple(field.name for field in attrs.fields(kind))
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return ()


field_names: Final[Callable[[type], tuple[str, ...]]] = functools.lru_cache(maxsize=512)(_field_names)
"""Returns the fields of a dataclass, attrs class or Struct; none for other types."""


def check_finite(value: Any, level: int = 1) -> None:
    """Raise ``Misfit`` for a nan or inf at any depth: msgspec writes ``null`` for them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _not_finite(value)
    if level > DEEPEST:
        raise TooDeep
    for step, item in _children(value):
        try:
            check_finite(item, level + 1)
        except Misfit as misfit:
            raise misfit.at(step) from None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
        yield from (("", key) for key in value if isinstance(key, float))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("", item) for item in value)
    else:
        yield from ((f".{name}", getattr(value, name, None)) for name in field_names(type(value)))
