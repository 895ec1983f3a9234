"""How a batch of verdicts is told to the broker: frames instead of deliveries, acks, releases, each step by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from boost_core.bridge.verdict import RELEASED, dead_frame, next_frame
from boost_core.contracts.capability import Capability
from boost_core.errors import ConnectionLost, PublishError, SettleError
from boost_core.types import Ack, Dead, Delivery, Ended, Frame, Next

if TYPE_CHECKING:
    from boost_core.bridge.pump import Pump


class Settlement:
    """One batch on its way. What a step could not settle is in ``failed``, and why in ``error``; the others are done.

    ``fenced`` are deliveries that were no longer ours. Once the connection is lost no further step is tried.
    """

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._replace = Capability.REPLACE in pump.spec.capabilities
        self.fenced: list[Delivery] = []
        self.failed: set[int] = set()
        self.error: Exception | None = None

    def write(self, ready: Sequence[Ended]) -> None:
        """Tell the broker of the whole batch."""
        subscription = self._pump.subscription
        goes_on = [end for end in ready if isinstance(end.verdict, (Next, Dead))]
        pairs = self._framed([end for end in goes_on if not end.forwarded])
        acks = [end.run.delivery for end in ready if end.forwarded or isinstance(end.verdict, Ack)]
        if pairs and self._replace:
            swap = [(end.run.delivery, frame) for end, frame in pairs]
            self._attempt([delivery for delivery, _ in swap], lambda: subscription.replace(swap))
        elif pairs:
            acks += self._published(pairs)
        if acks:
            self._attempt(acks, lambda: subscription.ack(acks))
        returned = [end.run.delivery for end in ready if end.verdict is RELEASED]
        if returned:
            self._attempt(returned, lambda: subscription.release(returned))

    def _attempt(self, deliveries: Sequence[Delivery], step: Callable[[], Sequence[Delivery]]) -> None:
        if isinstance(self.error, ConnectionLost):
            self.failed.update(map(id, deliveries))
            return
        try:
            self.fenced.extend(step())
        except SettleError as error:
            self._fail(error.failed, error)
        except Exception as error:
            self._fail(deliveries, error)

    def _fail(self, deliveries: Sequence[object], error: Exception) -> None:
        self.failed.update(map(id, deliveries))
        self.error = error

    def _published(self, pairs: Sequence[tuple[Ended, Frame]]) -> list[Delivery]:
        """Publish the frames of what goes on; return the deliveries that are to be acked for it."""
        missing: set[int] = set()
        try:
            self._pump.publish([frame for _, frame in pairs])
        except PublishError as error:
            missing = {*error.failed, *error.unsure}
            self._fail([pairs[index][0].run.delivery for index in missing], error)
        except Exception as error:
            missing = set(range(len(pairs)))
            self._fail([end.run.delivery for end, _ in pairs], error)
        stored = [end for index, (end, _) in enumerate(pairs) if index not in missing]
        for end in stored:
            end.forwarded = True  # if its ack fails, only that is repeated
        return [end.run.delivery for end in stored]

    def _framed(self, ended: Sequence[Ended]) -> list[tuple[Ended, Frame]]:
        pairs = []
        for end in ended:
            try:
                pairs.append((end, self._frame(end)))
            except Exception as error:
                self._fail([end.run.delivery], error)
        return pairs

    def _frame(self, end: Ended) -> Frame:
        codec, tag = self._pump.codec_for(end.run)
        if isinstance(end.verdict, Next):
            return next_frame(end, end.verdict, codec, tag)
        assert isinstance(end.verdict, Dead)
        queue = self._pump.dead_queue(end.run.delivery.queue)
        return dead_frame(end, end.verdict, codec, tag, queue, self._pump.spec.limits.max_body)
