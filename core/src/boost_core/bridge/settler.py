"""The settle side: outcomes in, verdicts decided, what must outlive them stored, then the ack."""

from __future__ import annotations

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from boost_core.bridge.verdict import ACK, RELEASED, dead_frame, next_frame, verdict_of
from boost_core.contracts.capability import Capability
from boost_core.contracts.control import Gate, Policy
from boost_core.errors import BoostError, ConnectionLost, PublishError, SettleError, text_of
from boost_core.native import Empty, SimpleQueue
from boost_core.types import Ack, Cancelled, Dead, Delivery, Done, Ended, Frame, Next, Run

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
        self._replace = Capability.REPLACE in pump.spec.capabilities
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
        ended = [self._decided(run, outcome) for run, outcome in fresh if not run.fenced]
        if ended:
            self.conclude(ended)

    def _first(self, run: Run) -> bool:
        if run.settled:
            self.counts["late"] += 1
            return False
        run.settled = True
        return True

    def _decided(self, run: Run, outcome: Any) -> Ended:
        if _goes_back(outcome):
            undo_gates([run])
            return Ended(run, outcome, RELEASED, committed=True)
        verdict = ACK if type(outcome) is Done else verdict_of(outcome, run.message)
        ended = Ended(run, outcome, verdict)
        for policy in run.task.policies:
            policy.decide(ended)
        return ended

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
        ready: list[Ended] = []
        try:
            ended = self._revalidated(ended)
            ready = self._committed(ended, wait)
            with self._pump.io:
                fenced = self._write(ready)
        except SettleError as error:
            unsettled = set(map(id, error.failed))
            self._put_aside([end for end in ready if id(end.run.delivery) in unsettled], wait, error)
            ready, fenced = [end for end in ready if id(end.run.delivery) not in unsettled], ()
        except ConnectionLost as error:
            self._parked += ready or ended
            self._pump.disconnected(error)
            return
        except BoostError as error:
            self._put_aside(ready or ended, wait, error)
            return
        self._count(ready, fenced)
        self._pump.forget([end.run for end in ready])

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

    def _write(self, ready: Sequence[Ended]) -> Sequence[Delivery]:
        """Tell the broker: frames instead of deliveries where they go on, an ack where they are finished."""
        subscription = self._pump.subscription
        acks = [end.run.delivery for end in ready if isinstance(end.verdict, Ack)]
        goes_on = [end for end in ready if isinstance(end.verdict, (Next, Dead))]
        pairs = [(end.run.delivery, self._frame(end)) for end in goes_on]
        returned = [end.run.delivery for end in ready if end.verdict is RELEASED]
        fenced: list[Delivery] = []
        unstored: SettleError | None = None
        if pairs and self._replace:
            fenced.extend(subscription.replace(pairs))
        elif pairs:
            stored, unstored = self._published(pairs)
            acks += stored
        if acks:
            fenced.extend(subscription.ack(acks))
        if returned:
            fenced.extend(subscription.release(returned))
        if unstored is not None:
            raise unstored
        return fenced

    def _published(self, pairs: Sequence[tuple[Delivery, Frame]]) -> tuple[list[Delivery], SettleError | None]:
        """Publish the frames of what goes on; return the deliveries to ack, and the error for those that stay."""
        deliveries = [delivery for delivery, _ in pairs]
        try:
            self._pump.publish([frame for _, frame in pairs])
        except PublishError as error:
            missing = {*error.failed, *error.unsure}
            stay = [delivery for index, delivery in enumerate(deliveries) if index in missing]
            stored = [delivery for index, delivery in enumerate(deliveries) if index not in missing]
            return stored, SettleError(error.broker, error.problem, failed=stay)
        return deliveries, None

    def _frame(self, end: Ended) -> Frame:
        codec, tag = self._pump.codec_for(end.run)
        if isinstance(end.verdict, Next):
            return next_frame(end, end.verdict, codec, tag)
        assert isinstance(end.verdict, Dead)
        queue = self._pump.dead_queue(end.run.delivery.queue)
        return dead_frame(end, end.verdict, codec, tag, queue, self._pump.spec.limits.max_body)

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
    def waiting(self) -> int:
        """How many outcomes are put aside."""
        return len(self._parked) + sum(len(entry[3]) for entry in self._aside)


def _goes_back(outcome: object) -> bool:
    return outcome is RELEASED or outcome is STOPPING


def undo_gates(runs: Iterable[Run]) -> None:
    """Let gates forget runs that never started or went back."""
    gates: dict[Gate, list[Run]] = defaultdict(list)
    for run in runs:
        for gate in run.task.gates:
            gates[gate].append(run)
    for gate, its in gates.items():
        gate.undo(its)


def _by_policy(ended: Iterable[Ended]) -> dict[Policy, list[Ended]]:
    by_policy: dict[Policy, list[Ended]] = defaultdict(list)
    for end in ended:
        for policy in end.run.task.committing:
            by_policy[policy].append(end)
    return by_policy
