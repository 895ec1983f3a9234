"""An attribute that is made at its first use, once, whichever threads use it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - used as property is
    """Decorates a method of an object that has a re-entrant lock ``_lock``; the attribute keeps what it returned.

    ``functools.cached_property`` has no lock from Python 3.12 on: threads that come first together would each make one.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> lazy[T]: ...
    @overload
    def __get__(self, owner: Any, kind: type) -> T: ...
    def __get__(self, owner: Any, kind: type) -> lazy[T] | T:
        if owner is None:
            return self
        kept = owner.__dict__  # read before this descriptor from then on
        with owner._lock:
            if self._name not in kept:
                kept[self._name] = self._make(owner)
            value: T = kept[self._name]
        return value
