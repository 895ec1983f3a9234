"""The settle side: outcomes in, verdicts decided, what must outlive them stored, then the ack."""

from __future__ import annotations

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from boost_core.bridge.settlement import Settlement
from boost_core.bridge.verdict import ACK, RELEASED, verdict_of
from boost_core.contracts.control import Gate, Policy
from boost_core.errors import BoostError, ConnectionLost, DecodeError, text_of
from boost_core.native import Empty, SimpleQueue
from boost_core.types import Cancelled, Dead, Delivery, Done, Ended, Next, Run

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump

log = logging.getLogger("boost.worker")

BATCH: Final = 64
"""Outcomes settled together: what a kill -9 at the worst instant runs again."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
STOPPING: Final = Cancelled("the worker is stopping")
"""The reason runs are cancelled with at the end of a drain: their messages go back, uncounted."""


class Settler:
    """Works off a pump's outcomes, in one thread. What can't be written now is tried again later; the others settle."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._box: SimpleQueue[Sequence[tuple[Run, Any]] | None] = SimpleQueue()
        self.report_all = self._box.put  # outcomes of a pool, one or many at once; any thread
        self._aside: list[tuple[float, int, float, list[Ended]]] = []
        self._parked: list[Ended] = []  # until there is a connection again
        self._sequence = 0
        self.counts: Counter[str] = Counter()

    # --- any thread ------------------------------------------------------------------------------

    def report(self, run: Run, outcome: Any) -> None:
        """Take an outcome in. The first one of a run counts, later ones are dropped."""
        self._box.put(((run, outcome),))

    def stop(self) -> None:
        """Let the thread end once everything before this call is worked off."""
        self._box.put(None)

    def resume(self) -> None:
        """Let the thread settle what was parked: there is a connection again."""
        self._box.put(())

    # --- settle thread -----------------------------------------------------------------------------

    def serve(self) -> None:
        """Settle until stopped. Never raises: a bug is logged, and its messages stay held."""
        going = True
        while going:
            try:
                going = self.step(self._next_wait())
            except Exception:
                log.exception("settling for broker %s failed; its messages stay held", self._pump.spec.name)

    def step(self, timeout: float | None) -> bool:
        """Settle what is there, waiting up to ``timeout`` seconds for it; return False when stopped."""
        self._retry_aside()
        batch, going = self._collect(timeout)
        if batch:
            self._settle(batch)
        return going

    def _next_wait(self) -> float | None:
        if not self._aside or self._pump.link.down:
            return None
        return max(0.0, self._aside[0][0] - self._pump.clock.monotonic())

    def _collect(self, timeout: float | None) -> tuple[list[tuple[Run, Any]], bool]:
        """Return about BATCH outcomes: whatever is there once the first has come. Never waits for more."""
        batch: list[tuple[Run, Any]] = []
        get = self._box.get_nowait
        try:
            ended = self._box.get(timeout=timeout) if timeout is None or timeout > 0 else get()
            while ended is not None:
                batch.extend(ended)
                if len(batch) >= BATCH:
                    return batch, True
                ended = get()
        except Empty:
            return batch, True
        return batch, False

    def _settle(self, batch: Sequence[tuple[Run, Any]]) -> None:
        fresh = [(run, outcome) for run, outcome in batch if self._first(run)]
        self._pump.give_back([run for run, _ in fresh])
        self._drop_fenced([run for run, _ in fresh if run.fenced])
        ended = [_ended(run, outcome) for run, outcome in fresh if not run.fenced]
        if ended:
            self.conclude(ended)

    def _first(self, run: Run) -> bool:
        if run.settled:
            self.counts["late"] += 1
            return False
        run.settled = True
        return True

    def _drop_fenced(self, runs: Sequence[Run]) -> None:
        """Let go of runs whose messages are somebody else's by now: nothing of theirs is stored."""
        if runs:
            self.counts["lost"] += len(runs)
            undo_gates(runs)
            self._pump.forget(runs)

    def conclude(self, ended: list[Ended], wait: float = FIRST_WAIT) -> None:
        """Store what must outlive them, then tell the broker; put aside what can't be written now."""
        if self._pump.link.down:
            self._parked += ended
            return
        try:
            ended = self._revalidated(ended)
        except ConnectionLost as error:
            self._park(ended, error)
            return
        except Exception as error:
            self._put_aside(ended, wait, error)
            return
        ready = self._committed(self._decided(ended, wait), wait)
        settlement = Settlement(self._pump)
        with self._pump.io:
            settlement.write(ready)
        if settlement.error is not None:
            stay = [end for end in ready if id(end.run.delivery) in settlement.failed]
            ready = [end for end in ready if id(end.run.delivery) not in settlement.failed]
            if isinstance(settlement.error, ConnectionLost):
                self._park(stay, settlement.error)
            else:
                self._put_aside(stay, wait, settlement.error)
        self._count(ready, settlement.fenced)
        self._pump.forget([end.run for end in ready])

    def _decided(self, ended: Sequence[Ended], wait: float) -> list[Ended]:
        """Let the policies decide what is undecided; a run whose policy fails waits, and its queue with it."""
        decided: list[Ended] = []
        for end in ended:
            try:
                if end.verdict is None:
                    end.verdict = verdict_by_policies(end)
            except Exception as error:
                end.verdict = None
                lane = self._pump.lanes[end.run.delivery.queue]
                lane.not_before = self._pump.clock.monotonic() + wait
                log.exception("a policy of task %s failed; its queue backs off", end.run.message.task)
                self._put_aside([end], wait, error)
            else:
                decided.append(end)
        return decided

    def _revalidated(self, ended: list[Ended]) -> list[Ended]:
        """Ask the broker about deliveries whose lease nobody renewed in time; drop those that are lost."""
        overdue = self._pump.overdue([end.run for end in ended])
        if overdue:
            self._pump.extend(overdue)
            self._drop_fenced([end.run for end in ended if end.run.fenced])
            return [end for end in ended if not end.run.fenced]
        return ended

    def _committed(self, ended: Sequence[Ended], wait: float) -> list[Ended]:
        """Run each policy's I/O over the whole batch; return those for which all went well."""
        failed: set[int] = set()
        for policy, ends in _by_policy(end for end in ended if not end.committed).items():
            try:
                policy.commit(ends)
            except Exception as error:
                failed.update(map(id, ends))
                self._put_aside(ends, wait, error)
        ready = [end for end in ended if id(end) not in failed]
        gates: dict[Gate, list[Ended]] = defaultdict(list)
        for end in ready:
            if not end.committed:
                end.committed = True
                for gate in end.run.task.gates:
                    gates[gate].append(end)
        for gate, ends in gates.items():
            self._tell(gate, ends)
        return ready

    def _tell(self, gate: Gate, ended: Sequence[Ended]) -> None:
        try:
            gate.settled(ended)
        except Exception:
            log.exception("a gate failed to take note of %d ended jobs", len(ended))

    def _count(self, ready: Sequence[Ended], fenced: Sequence[Delivery]) -> None:
        lost = set(map(id, fenced))
        for end in ready:
            if lost and id(end.run.delivery) in lost:
                self.counts["lost"] += 1
            elif type(end.outcome) is Done:
                self.counts["done"] += 1
            elif end.verdict is RELEASED:
                self.counts["stopped" if end.outcome is STOPPING else "released"] += 1
            else:
                self._tell_of(end)

    def _tell_of(self, end: Ended) -> None:
        """Count and log what didn't simply succeed; a success is not worth a line."""
        message, outcome, verdict = end.run.message, end.outcome, end.verdict
        if isinstance(verdict, Dead):
            self.counts["dead"] += 1
            error = getattr(outcome, "error", None)
            if isinstance(error, DecodeError):  # it says where it stands: our own frames wouldn't help anybody
                log.error("job %s of %s is a dead letter: %s: %s", message.id, message.task, verdict.reason, error)
                return
            raised = None if error is None else (type(error), error, error.__traceback__)
            log.error("job %s of %s is a dead letter: %s", message.id, message.task, verdict.reason, exc_info=raised)
        elif isinstance(verdict, Next):
            self.counts["retried" if verdict.counted else "requeued"] += 1
            text = "job %s of %s comes back in %g s after attempt %d: %s"
            cause = getattr(outcome, "error", None)
            shown = type(outcome).__name__ if cause is None else f"{type(cause).__name__}: {text_of(cause)}"
            log.warning(text, message.id, message.task, verdict.delay, message.attempt, shown)
        else:
            self.counts["dropped"] += 1
            log.info("job %s of %s ended %s", message.id, message.task, type(outcome).__name__.lower())

    # --- what waits for a store or broker that is down -------------------------------------------------

    def _park(self, ended: Sequence[Ended], error: ConnectionLost) -> None:
        self._parked += ended
        self._pump.disconnected(error)

    def _put_aside(self, ended: Sequence[Ended], wait: float, error: Exception) -> None:
        if not ended:
            return
        shown = str(error) if isinstance(error, BoostError) else f"{type(error).__name__}: {error}"
        log.warning("%d outcomes wait %g s to be settled: %s", len(ended), wait, shown)
        self._sequence += 1
        entry = (self._pump.clock.monotonic() + wait, self._sequence, min(wait * 2, LONGEST_WAIT), list(ended))
        heapq.heappush(self._aside, entry)

    def _retry_aside(self) -> None:
        if self._pump.link.down:
            return
        if self._parked:
            parked, self._parked = self._parked, []
            self.conclude(parked)
        while self._aside and self._aside[0][0] <= self._pump.clock.monotonic():
            _, _, wait, ended = heapq.heappop(self._aside)
            self.conclude(ended, wait)

    @property
    def unsettled(self) -> int:
        """How many runs ended whose outcomes wait to be settled; those that were given back are none."""
        waiting: list[Any] = [*self._parked, *(end for entry in self._aside for end in entry[3])]
        return sum(end.outcome is not RELEASED for end in waiting)


def _ended(run: Run, outcome: Any) -> Ended:
    """Return a run's end, undecided; one that goes back to the broker has nothing to be decided."""
    goes_back = outcome is RELEASED or outcome is STOPPING
    if goes_back:
        undo_gates([run])
        return Ended(run, outcome, RELEASED, committed=True)
    return Ended(run, outcome, ACK if type(outcome) is Done and not run.task.policies else None)


def verdict_by_policies(end: Ended) -> Any:
    """Return what an outcome leads to: what it means by itself, then as each policy decides."""
    end.verdict = ACK if type(end.outcome) is Done else verdict_of(end.outcome, end.run.message)
    for policy in end.run.task.policies:
        policy.decide(end)
    return end.verdict


def undo_gates(runs: Iterable[Run]) -> None:
    """Let gates forget runs that never started or went back."""
    gates: dict[Gate, list[Run]] = defaultdict(list)
    for run in runs:
        for gate in run.task.gates:
            gates[gate].append(run)
    for gate, its in gates.items():
        try:
            gate.undo(its)
        except Exception:
            log.exception("a gate failed to forget %d runs", len(its))


def _by_policy(ended: Iterable[Ended]) -> dict[Policy, list[Ended]]:
    by_policy: dict[Policy, list[Ended]] = defaultdict(list)
    for end in ended:
        for policy in end.run.task.committing:
            by_policy[policy].append(end)
    return by_policy
