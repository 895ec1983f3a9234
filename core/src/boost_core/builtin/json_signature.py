"""A function's signature as the codec ``json`` needs it: each parameter with its shape, and which calls fit."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, Optional

from boost_core.builtin.json_shape import ImpossibleShape, Shape, shape_of
from boost_core.errors import BadOption

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ADVICE = (
    "Annotate it with what JSON can stand for: text, numbers, dates, Path, dataclasses, lists and dicts of them, "
    "not two of them that JSON writes alike; or with Any."
)


class CallSignature:
    """The parameters of a function, resolved and compiled once.

    Raises ``BadOption`` where an annotation can't be resolved or carried.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self.task = task
        self._signature = inspect.signature(function)
        self._globals = _globals_of(function)
        parameters = self._signature.parameters.values()
        self.named = {
            parameter.name: self._shape(parameter)
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        self.positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        self.shapes = [self.named[name] for name in self.positional]
        self.extra = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.extra_shape = next((self._shape(p) for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.extra_named_shape = next((self._shape(p) for p in parameters if p.kind is p.VAR_KEYWORD), None)
        required = [p.name for p in parameters if p.name in self.named and p.default is p.empty]
        self._missing = [frozenset(required) - {*self.positional[:count]} for count in range(len(self.positional) + 1)]
        self._keywords = frozenset(
            p.name for p in parameters if p.name in self.named and p.kind is not p.POSITIONAL_ONLY
        )
        self._simple = self.extra_named_shape is None and len(self._keywords) == len(self.named)
        self.result = self._result_shape()

    # --- which calls fit ---------------------------------------------------------------------------

    def check(self, count: int, keywords: Collection[str]) -> None:
        """Raise ``TypeError``, in Python's own words, unless a call of so many arguments fits the function."""
        if not self.fits(count, keywords):
            try:
                self._signature.bind(*(None,) * count, **dict.fromkeys(keywords))
            except TypeError as error:
                message = f"{self.task}() {error}"
                raise TypeError(message) from None

    def fits(self, count: int, keywords: Collection[str]) -> bool:
        """Return True for a call that fits at first sight; ``Signature.bind`` takes ten times as long."""
        if count > len(self.positional):
            return self.extra is not None and not keywords and not self._missing[-1]
        if not keywords:
            return not self._missing[count]
        names = keywords if isinstance(keywords, (set, frozenset)) else frozenset(keywords)
        return (
            self._simple
            and self._missing[count] <= names
            and names <= self._keywords
            and names.isdisjoint(self.positional[:count])
        )

    # --- which shape an argument has ------------------------------------------------------------------

    def at(self, index: int) -> tuple[str, Shape]:
        """Return the name, as users know it, and the shape of a positional argument."""
        if index < len(self.positional):
            return self.positional[index], self.shapes[index]
        assert self.extra_shape is not None
        return f"{self.extra}[{index - len(self.positional)}]", self.extra_shape

    def by_name(self, name: str) -> Shape:
        """Return the shape of a keyword argument."""
        if name in self._keywords:
            return self.named[name]
        assert self.extra_named_shape is not None
        return self.extra_named_shape

    # --- annotations -------------------------------------------------------------------------------

    def _shape(self, parameter: inspect.Parameter) -> Shape:
        if parameter.annotation is parameter.empty:
            return Shape()
        try:
            hint = self._resolved(parameter.annotation)
            # "width: int = None" means that None is a value of it.
            return shape_of(Optional[hint] if parameter.default is None else hint)  # noqa: UP045
        except Exception as error:
            shown = _shown(parameter.annotation)
            problem = (
                f"task {self.task!r}: parameter {parameter.name!r} is annotated {shown}, which can't be used: {error}"
            )
            raise BadOption(problem, _fix(error)) from error

    def _result_shape(self) -> Shape:
        annotation = self._signature.return_annotation
        if annotation is inspect.Signature.empty:
            return Shape()
        try:
            return shape_of(self._resolved(annotation))
        except Exception as error:
            shown = _shown(annotation)
            return ImpossibleShape(f"is annotated {shown}, which can't be carried: {error}. {_fix(error)}")

    def _resolved(self, annotation: Any) -> Any:
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        return typing.get_type_hints(holder, globalns=self._globals, include_extras=True)["it"]


def _shown(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _fix(error: Exception) -> str:
    if isinstance(error, NameError):
        return "Import the name where the annotation can see it: at module level, not below `if TYPE_CHECKING:`."
    return _ADVICE


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__globals__"):
        inner = getattr(inner, "__call__", inner)  # noqa: B004 - an object with a __call__ of its own
    return dict(getattr(inner, "__globals__", {}))
