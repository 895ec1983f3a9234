"""What of the ledger is written at the servers, and what isn't yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from boost_broker_kafka.cluster import Partition
from boost_broker_kafka.holdings import Holdings, Share

log = logging.getLogger("boost.broker.kafka")

SECONDS: Final = 0.1
ACKS: Final = 500

SILENCE_SECONDS: Final = 2.0
"""A commit that isn't answered for so long may never be: no ack is taken any more that could be lost with it."""

_TURN_SECONDS: Final = 0.1
_LOOK: Final = 0.01

STALE: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.FENCED_INSTANCE_ID})
"""Answers to a commit after which the partitions are somebody else's."""


@attrs.frozen
class _Commit:
    share: Share
    offset: int
    metadata: str


_Commits = dict[Partition, _Commit]


class Commits:
    """Commits what changed: every 100 ms or 500 acks without waiting, and on demand.

    The reader's thread, but for ``acked``: a consumer is for one thread, and keeps others waiting while it polls.
    """

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._unwritten: _Commits = {}
        self._under_way: _Commits = {}
        self._acks = 0
        self._sent_acks = 0
        self._failed: KafkaError | None = None
        self._unanswered = 0.0
        self._last_tick = self._last = time.monotonic()
        self.consumer: Consumer

    def acked(self, count: int) -> None:
        """Count acks: many are worth a commit of their own. Any thread."""
        self._acks += count

    @property
    def unsure(self) -> int:
        """How many acks, at most, no server is known to have noted. Any thread."""
        return self._acks + self._sent_acks

    @property
    def silent(self) -> bool:
        """Whether the servers have left a commit without an answer for too long. Any thread."""
        return self._unanswered >= SILENCE_SECONDS

    def tick(self) -> None:
        """Commit if it is time to; one at a time, or an old one that failed would undo a new one."""
        now = time.monotonic()
        if self._under_way or self._unwritten:  # a reader that was busy elsewhere couldn't hear: that doesn't count
            self._unanswered += min(now - self._last_tick, _TURN_SECONDS)
        self._last_tick = now
        if self._under_way or (now - self._last < SECONDS and self._acks < ACKS):
            return
        self._last = now
        self._collect()
        self._send()

    def flush(self, seconds: float) -> KafkaError | None:
        """Commit all there is, and wait so long for the answer; return what went wrong.

        Polls, and drops what comes by that: for a consumer that reads no more.
        """
        deadline = time.monotonic() + seconds
        try:
            if self._heard_by(deadline):  # of what was sent before
                self._failed = None
                self._collect()
                self._send()
            return self._failed if self._heard_by(deadline) else KafkaError(KafkaError._TIMED_OUT)
        except KafkaException as error:
            failed: KafkaError = error.args[0]
            return failed

    def _heard_by(self, deadline: float) -> bool:
        while self._under_way and time.monotonic() < deadline:
            self.consumer.poll(_LOOK)
        return not self._under_way

    def write(self, only: Sequence[Partition] | None = None) -> KafkaError | None:
        """Commit all there is, or what is of these partitions, and wait for the answer; return what went wrong."""
        self._collect()
        everything = self._valid({**self._under_way, **self._unwritten})
        chosen = {one: commit for one, commit in everything.items() if only is None or one in only}
        if not chosen:
            return None
        for partition in chosen:
            self._unwritten.pop(partition, None)
        try:
            answers = self.consumer.commit(offsets=_offsets(chosen), asynchronous=False)
        except KafkaException as error:
            self._put_back(chosen)
            failed: KafkaError = error.args[0]
            self._note(failed)
            return failed
        return self._answered(chosen, answers or [])

    def prove(self, share: Share) -> KafkaError | None:
        """Commit again what a partition's last commit said; return what went wrong: whether it still is ours."""
        same = _offsets({share.partition: _Commit(share, share.committed, share.metadata)})
        try:
            (answer,) = self.consumer.commit(offsets=same, asynchronous=False) or [TopicPartition("")]
        except KafkaException as error:
            failed: KafkaError = error.args[0]
            return failed
        return answer.error

    def heard(self, error: KafkaError | None, answers: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit that nobody waited for; given to librdkafka as ``on_commit``."""
        sent, self._under_way = self._under_way, {}
        if error is not None:
            log.debug("a commit failed and is repeated: %s", error)
            self._put_back(sent)
            self._note(error)
        else:
            self._answered(sent, answers)

    def forget(self) -> None:
        """Begin anew, with another consumer."""
        self._unwritten, self._under_way = {}, {}
        self._acks = self._sent_acks = 0
        self._unanswered = 0.0

    def _collect(self) -> None:
        changed: Mapping[Any, tuple[int, str]] = self._holdings.ledger.commits()
        shares = self._holdings.shares
        fresh = {partition: _Commit(shares[partition], *commit) for partition, commit in changed.items()}
        self._unwritten = self._valid(self._unwritten) | fresh
        self._sent_acks, self._acks = self._sent_acks + self._acks, 0
        self._balance()

    def _send(self) -> None:
        if self._unwritten:
            self._under_way, self._unwritten = self._unwritten, {}
            self.consumer.commit(offsets=_offsets(self._under_way), asynchronous=True)

    def _balance(self) -> None:
        """With nothing to be committed there is nothing to be unsure of."""
        if not self._under_way and not self._unwritten:
            self._sent_acks = 0
            self._unanswered = 0.0

    def _note(self, error: KafkaError | None) -> None:
        """Take note of how a commit ended; an error below 0 is librdkafka's own: no server said it."""
        self._failed = error
        if error is None or error.code() >= 0:
            self._unanswered = 0.0

    def _valid(self, commits: _Commits) -> _Commits:
        """Leave out what is of a share that was given up: its partition may be somebody else's, or another log."""
        shares = self._holdings.shares
        return {partition: commit for partition, commit in commits.items() if shares.get(partition) is commit.share}

    def _answered(self, sent: _Commits, answers: Sequence[TopicPartition]) -> KafkaError | None:
        failed: _Commits = {}
        worst = None
        for one in answers:
            partition = (one.topic, one.partition)
            commit = sent.get(partition)
            if one.error is not None:
                worst = one.error
            if commit is None:
                continue
            if one.error is not None:
                failed[partition] = commit
            else:
                commit.share.committed, commit.share.metadata = commit.offset, commit.metadata
        self._put_back(failed)
        self._note(worst)
        self._balance()
        return worst

    def _put_back(self, commits: _Commits) -> None:
        self._unwritten = self._valid(commits) | self._unwritten


def _offsets(commits: _Commits) -> list[TopicPartition]:
    return [
        TopicPartition(topic, number, commit.offset, metadata=commit.metadata)
        for (topic, number), commit in commits.items()
    ]
