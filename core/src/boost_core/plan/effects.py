"""Drives generator controls: one definition, every world."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from boost_core.contracts.control import Around, Effect, Proceed, Sleep
from boost_core.errors import ControlError
from boost_core.types import OUTCOMES, Failed, Outcome, Run, RunnerCall


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
            if isinstance(effect, Sleep):
                threading.Event().wait(effect.seconds)
                answer = None
            else:
                answer = nxt(run)

    call.__qualname__ = f"around[{control}]"
    return call


def drive_async(control: str, around: Callable[[Run], Around], nxt: RunnerCall) -> RunnerCall:
    """Return ``nxt`` wrapped in a generator control, for the asyncio world."""
    import asyncio  # here: a process that only pushes needs no event loop

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
        effect = generator.send(answer)
    except StopIteration as stop:
        if not isinstance(stop.value, OUTCOMES):
            message = f"its around() returned {stop.value!r}; it must return an Outcome"
            raise TypeError(message) from None
        return None, stop.value
    if not isinstance(effect, (Proceed, Sleep)):
        message = f"its around() yielded {effect!r}; it may yield PROCEED and Sleep(seconds)"
        raise TypeError(message)
    return effect, None


def guarded(control: str, distribution: str, nxt: RunnerCall) -> RunnerCall:
    """Return ``nxt`` with whatever a control's own code raises as that control's failure: outer layers see data."""

    def call(run: Run) -> Outcome:
        try:
            return nxt(run)  # type: ignore[no-any-return]
        except BaseException as error:  # a SystemExit too: it would end the pool's thread, and its run never
            return _blamed(control, distribution, error)

    return call


def guarded_async(control: str, distribution: str, nxt: RunnerCall) -> RunnerCall:
    """Return coroutine function ``nxt`` with whatever a control's own code raises as that control's failure."""
    import asyncio

    async def call(run: Run) -> Outcome:
        try:
            return await nxt(run)  # type: ignore[no-any-return]
        except asyncio.CancelledError as error:
            if run.cancel_reason is not None or run.fenced:  # asked for: the pool says what became of it
                raise
            return _blamed(control, distribution, error)
        except BaseException as error:
            return _blamed(control, distribution, error)

    return call


def _blamed(control: str, distribution: str, error: BaseException) -> Failed:
    blame = ControlError(control, distribution, f"{type(error).__name__}: {error}")
    blame.__cause__ = error
    return Failed(blame, final=True)
