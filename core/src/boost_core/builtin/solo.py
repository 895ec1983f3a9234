"""The pool ``solo``: one call at a time, in one thread."""

from __future__ import annotations

from typing import Any, ClassVar

from boost_core.builtin.threads import ThreadPool
from boost_core.contracts.specs import World


class SoloPool(ThreadPool):
    """Runs one call at a time, all of them in the same thread, in the order they came."""

    world: ClassVar[World] = World.INLINE

    def __init__(self, options: Any, size: int) -> None:
        super().__init__(options, 1)
