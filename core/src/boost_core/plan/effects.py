"""Drives generator controls: one definition, every world."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from boost_core.contracts.control import Around, Effect, Sleep
from boost_core.errors import ControlError
from boost_core.types import OUTCOMES, Outcome, Run, RunnerCall


def drive(control: str, around: Callable[[Run], Around], nxt: RunnerCall) -> RunnerCall:
    """Return ``nxt`` wrapped in a generator control, for blocking worlds."""

    def call(run: Run) -> Outcome:
        generator = around(run)
        answer: Any = None
        outcome: Outcome
        while True:
            effect, outcome = _advance(generator, answer)
            if effect is None:
                return outcome
            answer = _pause(effect) if isinstance(effect, Sleep) else nxt(run)

    call.__qualname__ = f"around[{control}]"
    return call


def drive_async(control: str, around: Callable[[Run], Around], nxt: RunnerCall) -> RunnerCall:
    """Return ``nxt`` wrapped in a generator control, for the asyncio world."""

    async def call(run: Run) -> Outcome:
        generator = around(run)
        answer: Any = None
        outcome: Outcome
        while True:
            effect, outcome = _advance(generator, answer)
            if effect is None:
                return outcome
            answer = await (asyncio.sleep(effect.seconds) if isinstance(effect, Sleep) else nxt(run))

    call.__qualname__ = f"around[{control}]"
    return call


def _advance(generator: Around, answer: Any) -> tuple[Effect | None, Any]:
    try:
        return generator.send(answer), None
    except StopIteration as stop:
        if not isinstance(stop.value, OUTCOMES):
            message = f"its around() returned {stop.value!r}; it must return an Outcome"
            raise TypeError(message) from None
        return None, stop.value


def _pause(effect: Sleep) -> Any:
    return threading.Event().wait(effect.seconds)


def guarded(control: str, distribution: str, nxt: RunnerCall) -> RunnerCall:
    """Return ``nxt`` with a control's own exceptions named as its own."""

    def call(run: Run) -> Outcome:
        try:
            return nxt(run)  # type: ignore[no-any-return]
        except ControlError:
            raise
        except Exception as error:
            raise ControlError(control, distribution, f"{type(error).__name__}: {error}") from error

    return call


def guarded_async(control: str, distribution: str, nxt: RunnerCall) -> RunnerCall:
    """Return coroutine function ``nxt`` with a control's own exceptions named as its own."""

    async def call(run: Run) -> Outcome:
        try:
            return await nxt(run)  # type: ignore[no-any-return]
        except ControlError:
            raise
        except Exception as error:
            raise ControlError(control, distribution, f"{type(error).__name__}: {error}") from error

    return call
