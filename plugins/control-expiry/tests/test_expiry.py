"""Control ``expiry``: what it stamps, what its gate refuses, and how it presents itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from boost_control_expiry.control import Expiry
from boost_control_expiry.plugin import EXPIRY, ExpiryOptions, boost_controls
from boost_core.options import build_options
from boost_core.plugin import (
    START,
    BadOption,
    ControlContext,
    Deadlines,
    Delivery,
    Drop,
    End,
    GateStage,
    Message,
    Run,
    Store,
)
from boost_core.testing import FakeClock

NOW = 1_800_000_000


class NoDeadlines(Deadlines):
    """Deadlines for a control that never watches any."""

    def watch(self, run: Run, seconds: float) -> None:
        """Refuse: this control watches no run."""
        pytest.fail(f"the control watched a run for {seconds} s")

    def forget(self, run: Run) -> None:
        """Refuse, as above."""
        pytest.fail("the control forgot a run")


def no_store() -> Store:
    """Refuse: this control needs no store."""
    pytest.fail("the control asked for a store")


@attrs.define
class Expiring:
    """The control with its clock."""

    clock: FakeClock
    control: Expiry

    def stamped(self, values: Mapping[str, Any], **fields: Any) -> Message:
        """Return a message published now with these option values."""
        message = Message(v=1, id="1", task="price", at=int(self.clock.time() * 1_000_000), **fields)
        self.control.stamp(message, values)
        return message

    def run(self, message: Message) -> Run:
        """Return the run of a message."""
        return Run(None, message, (Delivery("price", b"", 1),), 1, self.clock)


@pytest.fixture
def expiring() -> Expiring:
    """Return the control on a clock that stands at NOW."""
    clock = FakeClock(time=NOW)
    context = ControlContext(clock=clock, namespace="", store=no_store, deadlines=NoDeadlines())
    return Expiring(clock, Expiry(context))


def is_expired(admission: object) -> bool:
    """Return whether an admission ends the run as expired."""
    return isinstance(admission, End) and isinstance(admission.outcome, Drop) and admission.outcome.reason == "expired"


def test_stamp_sets_the_moment_in_microseconds(expiring: Expiring) -> None:
    """A message expires max_age seconds after its publishing."""
    assert expiring.stamped({"max_age": 2.5}).expires_at == NOW * 1_000_000 + 2_500_000


def test_without_max_age_nothing_is_stamped(expiring: Expiring) -> None:
    """A message without max_age never expires."""
    assert expiring.stamped({"max_age": None}).expires_at is None


def test_delay_beyond_max_age_is_refused(expiring: Expiring) -> None:
    """A message that would expire before its delay ends is an error at push that names both."""
    not_before = (NOW + 60) * 1_000_000

    with pytest.raises(BadOption) as caught:
        expiring.stamped({"max_age": 60.0}, not_before=not_before)

    assert str(caught.value) == (
        "task 'price': with delay=60 and max_age=60 it would never run.\n  Give a max_age beyond the delay."
    )
    assert expiring.stamped({"max_age": 60.1}, not_before=not_before).expires_at is not None


def test_gate_starts_until_the_moment_and_drops_from_it_on(expiring: Expiring) -> None:
    """A message starts before its moment and is dropped as expired from that moment on."""
    gate = expiring.control.gate(None)
    run = expiring.run(expiring.stamped({"max_age": 10.0}))

    expiring.clock.advance(9.999)
    assert gate.admit([run]) == [START]
    expiring.clock.advance(0.001)
    assert is_expired(gate.admit([run])[0])


def test_gate_answers_each_run_in_order(expiring: Expiring) -> None:
    """Expired runs of a batch end, all others of it start, in the order given."""
    gate = expiring.control.gate(None)
    ages = [None, 5.0, 50.0, None, 5.0]
    runs = [expiring.run(expiring.stamped({"max_age": age})) for age in ages]
    expiring.clock.advance(20)

    admissions = gate.admit(runs)

    assert [is_expired(admission) for admission in admissions] == [False, True, False, False, True]
    assert [admission is START for admission in admissions] == [True, False, True, True, False]


def test_gate_reads_no_clock_for_batches_that_cannot_expire() -> None:
    """Messages without max_age are let in without asking for the time."""
    unread: Callable[[], float] = lambda: pytest.fail("the clock was read")  # noqa: E731
    clock = FakeClock()
    clock.time = unread  # type: ignore[method-assign]
    context = ControlContext(clock=clock, namespace="", store=no_store, deadlines=NoDeadlines())
    gate = Expiry(context).gate(None)
    message = Message(v=1, id="1", task="price", at=0)

    assert gate.admit([Run(None, message, (), 1, clock)] * 3) == [START] * 3
    assert gate.admit([]) == []


def test_all_tasks_share_one_gate(expiring: Expiring) -> None:
    """Every task gets the gate, the same one, for a single message may bring a max_age."""
    assert expiring.control.gate("one task") is expiring.control.gate("another")


def test_spec_names_the_stage_and_the_option() -> None:
    """The package provides one control, in the stage EXPIRE, and its factory is the control."""
    assert list(boost_controls()) == [EXPIRY]
    assert EXPIRY.gate is GateStage.EXPIRE
    assert EXPIRY.factory == f"{Expiry.__module__}:{Expiry.__qualname__}"
    assert attrs.fields(ExpiryOptions).max_age.metadata["message"] is True


@pytest.mark.parametrize(("given", "seconds"), [(None, None), (90, 90.0), ("1m30s", 90.0), ("250ms", 0.25)])
def test_max_age_is_a_duration(given: object, seconds: float | None) -> None:
    """max_age takes seconds, text with units, or None."""
    assert build_options("control 'expiry'", ExpiryOptions, {"max_age": given}).max_age == seconds


@pytest.mark.parametrize("given", [0, -1, "soon", True])
def test_unusable_max_age_is_refused(given: object) -> None:
    """A max_age of 0 or less, or that is no duration, is a BadOption that names it."""
    with pytest.raises(BadOption, match=r"control 'expiry': option max_age="):
        build_options("control 'expiry'", ExpiryOptions, {"max_age": given})
