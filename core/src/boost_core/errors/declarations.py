"""Errors of options, names, tasks and targets: what is declared or chosen can't be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs

from boost_core.errors.base import BoostError, guess, listed

_SHOWN_NAME = 60


@attrs.define(eq=False)
class BadOption(BoostError):
    """An option is unknown, misspelt, of the wrong type or out of its range."""

    code: ClassVar[str] = "bad-option"

    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem

    @classmethod
    def unknown(cls, owner: str, name: str, known: Sequence[str]) -> BadOption:
        """Return the error for an option that ``owner`` ("broker 'kafka'") doesn't have."""
        close = guess(name, known)
        tail = f" Did you mean {close!r}?" if close else f"\n  Its options: {listed(known)}"
        return cls(f"{owner} has no option {name!r}.{tail}")


@attrs.define(eq=False)
class BadName(BoostError):
    """A queue, task, namespace or plugin name can't be used."""

    code: ClassVar[str] = "bad-name"

    what: str
    name: str
    problem: str

    def __str__(self) -> str:
        shown: object = self.name
        if isinstance(shown, str) and len(shown) > _SHOWN_NAME:
            shown = f"{shown[: _SHOWN_NAME - 3]}..."
        return f"{self.what} name {shown!r} {self.problem}"


@attrs.define(eq=False)
class TaskConflict(BoostError):
    """Two functions claim one task name, or one queue where neither said so."""

    code: ClassVar[str] = "task-conflict"

    what: str
    name: str
    places: Sequence[str]
    fix: str

    def __str__(self) -> str:
        lines = [f"two functions claim the {self.what} {self.name!r}:"]
        lines += [f"  {place}" for place in self.places]
        lines.append(f"  {self.fix}")
        return "\n".join(lines)


@attrs.define(eq=False)
class TaskUnknown(BoostError):
    """No task of that name is declared in this app."""

    code: ClassVar[str] = "task-unknown"

    name: str
    known: Sequence[str] = ()

    def __str__(self) -> str:
        close = guess(self.name, self.known)
        tail = f" Did you mean {close!r}?" if close else f"\n  Declared tasks: {listed(self.known)}"
        return f"no task named {self.name!r} is declared.{tail}"


@attrs.define(eq=False)
class ControlMismatch(BoostError):
    """A control can't serve a task: it has no form for the task's colour, or its order is impossible."""

    code: ClassVar[str] = "control-mismatch"

    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem


@attrs.define(eq=False)
class ControlError(BoostError):
    """A control's own code raised inside a run; the run failed because of it."""

    code: ClassVar[str] = "control-error"

    control: str
    distribution: str
    problem: str

    def __str__(self) -> str:
        return f"control {self.control!r} ({self.distribution}) raised: {self.problem}"


@attrs.define(eq=False)
class TargetError(BoostError):
    """A TARGET of the command line names nothing that can be used."""

    code: ClassVar[str] = "target"

    target: str
    problem: str

    def __str__(self) -> str:
        return f"target {self.target!r}: {self.problem}"
