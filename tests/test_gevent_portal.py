"""A push to a broker written in coroutines, in a process that gevent has patched whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CORE_TESTS = Path(__file__).resolve().parents[1] / "core" / "tests"
"""Has a broker in coroutines, as a plugin's author would write one."""

GREEN = """
from gevent import monkey

monkey.patch_all()
import asyncio

import gevent
import attrs
import loopbroker
from boost_core import App
from plugged import importable


class PatientBroker(loopbroker.LoopBroker):
    go_on, given_up = None, 0

    async def publish(self, frames, timeout):
        PatientBroker.loop, PatientBroker.go_on = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            PatientBroker.given_up += 1
            raise
        await super().publish(frames, timeout)


def let_go_on():
    while PatientBroker.go_on is None:
        gevent.sleep(0.001)
    PatientBroker.loop.call_soon_threadsafe(PatientBroker.go_on.set)


def give_up():
    while PatientBroker.go_on is None:
        gevent.sleep(0.001)
    pushing.kill()


def given_up():
    task.depth()  # the loop has heard of all before
    return PatientBroker.given_up


app = App("green", broker=attrs.evolve(loopbroker.SPEC, factory=importable(PatientBroker)), store="memory")
task = app.boost("task")(lambda: None)
"""


@pytest.mark.parametrize(
    "code",
    [
        "gevent.spawn(let_go_on); task.push(); print(task.depth().ready)",
        "gevent.spawn(give_up); pushing = gevent.spawn(task.push); pushing.join(); print(given_up())",
    ],
    ids=["stored", "given up"],
)
def test_a_push_lets_greenlets_go_on(code: str) -> None:
    """While one waits for the broker, another runs: here it has the broker store, or ends who waits and so the call."""
    command = [sys.executable, "-W", "error", "-c", GREEN + code]
    environment = {**os.environ, "PYTHONPATH": str(CORE_TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("1\n", "")
