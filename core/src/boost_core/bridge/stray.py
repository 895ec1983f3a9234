"""Stands in for the plan of messages that have none: unreadable bodies and unknown tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from boost_core.types import ENVELOPE_VERSION, Delivery, Message, Run, new_id

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump


@attrs.frozen
class Stray:
    """A plan without gates and policies, so that strays take the way of all outcomes."""

    outcome: Any
    name: str
    queue: str
    gates: ClassVar[tuple[()]] = ()
    policies: ClassVar[tuple[()]] = ()
    committing: ClassVar[tuple[()]] = ()
    values: ClassVar[dict[str, Any]] = {}
    codec_name: ClassVar[str] = "json"

    @classmethod
    def run_of(cls, outcome: Any, delivery: Delivery, token: int, pump: Pump, message: Message | None = None) -> Run:
        """Return a run that carries ``outcome`` from the start."""
        if message is None:
            now = int(pump.clock.time() * 1_000_000)
            message = Message(v=ENVELOPE_VERSION, id=new_id(), task="?", at=now)
        return Run(cls(outcome, message.task, delivery.queue), message, delivery, token, pump.clock, pump)
