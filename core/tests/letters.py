"""Ways to wait for what workers do, and to read what they leave behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from boost_core.app.task import Task
from boost_core.bridge.envelope import open_dead
from boost_core.types import DeadLetter


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return what ``condition()`` gives once it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.005)
    raise AssertionError(f"never became true: {condition}")


def dead_letters(task: Task[..., Any]) -> list[DeadLetter]:
    """Return the dead letters of a task's queue."""
    frames = task.broker.peek(f"{task.plan.queue}.dead", 1000)
    return [open_dead(frame.body, task.app.services.codec) for frame in frames]
