"""Errors of messages: what can't be carried, or read."""

from __future__ import annotations

from typing import ClassVar

import attrs

from boost_core.errors.base import BoostError


@attrs.define(eq=False)
class BadArgument(BoostError):
    """An argument can't be carried, or isn't what the function's signature says; named, at push."""

    code: ClassVar[str] = "bad-argument"

    task: str
    parameter: str
    problem: str

    def __str__(self) -> str:
        return f"task {self.task!r}, argument {self.parameter!r}: {self.problem}"


@attrs.define(eq=False)
class BodyTooLarge(BoostError):
    """The encoded message is over what the broker takes."""

    code: ClassVar[str] = "body-too-large"

    task: str
    size: int
    broker: str
    limit: int

    def __str__(self) -> str:
        return (
            f"task {self.task!r}: the message is {self.size:,} bytes;"
            f" broker {self.broker!r} takes at most {self.limit:,}.\n"
            f"  Push a reference (a path, a key) instead of the data."
        )


@attrs.define(eq=False)
class DecodeError(BoostError):
    """A body is not an envelope that any installed codec can read. ``newer``: it is of a later version."""

    code: ClassVar[str] = "decode"

    problem: str
    newer: bool = False

    def __str__(self) -> str:
        return self.problem
