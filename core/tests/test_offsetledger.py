"""The ledger that turns single acks into commits of a log: checked against a small reference model."""

from __future__ import annotations

import math

import pytest
from boost_core.plugin.native import Thread
from boost_core.plugin.offsetledger import LARGEST_METADATA, OffsetLedger, read_commit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

P = ("jobs", 0)
"""A partition: a topic and a number."""


@pytest.fixture
def ledger() -> OffsetLedger:
    """Return a ledger without partitions."""
    return OffsetLedger()


def begun(ledger: OffsetLedger, *offsets: int) -> list[int]:
    """Begin offsets; return those that are to be worked on."""
    return [offset for offset in offsets if ledger.begin(P, offset)]


def successor(commit: tuple[int, str]) -> OffsetLedger:
    """Return the ledger of who takes the partition over after that commit."""
    taken_over = OffsetLedger()
    taken_over.assign(P, *commit)
    return taken_over


# --- by example ----------------------------------------------------------------------------------------------


def test_commits_follow_the_first_offset_that_is_not_done(ledger: OffsetLedger) -> None:
    """Acks come in any order; what is committed is the first offset still to be done, with what is done beyond it."""
    generation = ledger.assign(P, 10)
    assert begun(ledger, 10, 11, 12, 13) == [10, 11, 12, 13]
    assert ledger.commits() == {}

    assert ledger.done(P, 12, generation)
    assert ledger.done(P, 11, generation)
    assert ledger.commits() == {P: (10, "boost1 a 1.2")}
    assert ledger.commits() == {}

    assert ledger.done(P, 10, generation)
    assert ledger.commits() == {P: (13, "")}


def test_the_next_owner_skips_what_is_done(ledger: OffsetLedger) -> None:
    """A commit's metadata tells whoever reads from there which offsets are done; those aren't begun again."""
    generation = ledger.assign(P, 0)
    begun(ledger, *range(8))
    for offset in (0, 2, 3, 6):
        ledger.done(P, offset, generation)
    commit = ledger.commits()[P]
    assert commit[0] == 1

    assert begun(successor(commit), *range(1, 10)) == [1, 4, 5, 7, 8, 9]


def test_offsets_that_dont_exist_count_as_done(ledger: OffsetLedger) -> None:
    """Transaction markers and compacted records are never read; they hold no commit back, at its edge or beyond it."""
    generation = ledger.assign(P, 5)
    begun(ledger, 7, 10, 20)
    ledger.done(P, 10, generation)
    assert ledger.commits() == {P: (7, "boost1 7 1.c")}

    ledger.done(P, 7, generation)
    assert ledger.commits() == {P: (20, "")}


def test_a_commit_reaches_over_what_a_former_owner_did(ledger: OffsetLedger) -> None:
    """Offsets known as done from the metadata are passed without having been read, and stay known until then."""
    generation = ledger.assign(P, 0, "boost1 0 1.2,3.1")

    assert begun(ledger, 0) == [0]
    ledger.done(P, 0, generation)

    assert ledger.commits() == {P: (3, "boost1 3 3.1")}
    assert begun(ledger, 1, 2, 3, 4, 5, 6, 7) == [3, 4, 5, 7]


def test_what_vanished_between_two_owners_holds_nothing_back(ledger: OffsetLedger) -> None:
    """Messages that the log dropped meanwhile are passed like holes: those to be done, and those that were done."""
    ledger.assign(P, 0, "boost1 0 3.2,5.2")

    assert begun(ledger, 4, 5) == [5]
    assert ledger.commits() == {P: (5, "boost1 5 5.2")}

    ledger.assign(P, 0, "boost1 0 3.2,5.2")
    assert begun(ledger, 20, 20) == [20]
    assert ledger.commits() == {P: (20, "")}


def test_acks_of_former_assignments_are_refused(ledger: OffsetLedger) -> None:
    """After a revoke or a new assignment the generation moved on; late acks are refused and change nothing."""
    old = ledger.assign(P, 0)
    begun(ledger, 0, 1)
    ledger.revoke(P)
    assert ledger.generation(P) is None
    assert not ledger.done(P, 0, old)

    new = ledger.assign(P, 0)
    begun(ledger, 0, 1)
    newest = ledger.assign(P, 0)
    begun(ledger, 0, 1)
    assert len({old, new, newest}) == 3
    assert ledger.generation(P) == newest
    assert not ledger.done(P, 0, old)
    assert not ledger.undone(P, 0, new)
    assert ledger.in_flight(P) == 2
    ledger.done(P, 1, newest)
    assert ledger.commits() == {P: (0, "boost1 0 1.1")}


def test_a_partition_that_isnt_ours_has_nothing(ledger: OffsetLedger) -> None:
    """Nothing is begun, done, in flight or committed on it, and revoking it is harmless."""
    assert not ledger.begin(P, 0)
    assert not ledger.done(P, 0, 1)
    assert not ledger.undone(P, 0, 1)
    assert (ledger.in_flight(P), ledger.gap(P), ledger.generation(P), ledger.commits()) == (0, 0, None, {})
    ledger.revoke(P)

    ledger.assign(P, 0)
    begun(ledger, 0)
    ledger.revoke(P)
    assert ledger.commits() == {}


def test_released_offsets_are_begun_again(ledger: OffsetLedger) -> None:
    """What was released holds the commit back, may be begun once more, and until then can't be done."""
    generation = ledger.assign(P, 0)
    begun(ledger, 0, 1)
    ledger.done(P, 1, generation)

    assert ledger.undone(P, 0, generation)
    assert ledger.undone(P, 0, generation)
    assert not ledger.undone(P, 1, generation)
    assert not ledger.done(P, 0, generation)
    assert ledger.in_flight(P) == 0
    assert ledger.commits() == {P: (0, "boost1 0 1.1")}

    assert begun(ledger, 0, 0, 1) == [0]
    assert ledger.done(P, 0, generation)
    assert ledger.commits() == {P: (2, "")}


def test_what_was_never_begun_isnt_done(ledger: OffsetLedger) -> None:
    """An ack of something that nobody read is refused, so that nothing is passed unseen."""
    generation = ledger.assign(P, 0)

    assert not ledger.done(P, 3, generation)
    assert not ledger.undone(P, 3, generation)
    assert begun(ledger, 3) == [3]


def test_gap_and_in_flight_measure_how_far_reading_went_ahead(ledger: OffsetLedger) -> None:
    """Gap is the distance from the first offset to do to the last one begun; in flight are those begun and not ended."""
    generation = ledger.assign(P, 100, "boost1 64 3e8.1")
    assert (ledger.gap(P), ledger.in_flight(P)) == (0, 0)

    begun(ledger, 100, 101, 102, 109)
    assert (ledger.gap(P), ledger.in_flight(P)) == (9, 4)

    ledger.done(P, 102, generation)
    ledger.undone(P, 109, generation)
    assert (ledger.gap(P), ledger.in_flight(P)) == (9, 2)

    ledger.done(P, 100, generation)
    assert (ledger.gap(P), ledger.in_flight(P)) == (8, 1)
    ledger.done(P, 101, generation)
    assert (ledger.gap(P), ledger.in_flight(P)) == (0, 0)


def test_partitions_are_apart(ledger: OffsetLedger) -> None:
    """Each partition has its own offsets, and a generation that no other one ever had."""
    generations = [ledger.assign(("jobs", number), number) for number in range(3)]
    assert len(set(generations)) == 3

    for number in range(3):
        assert ledger.begin(("jobs", number), 7)
    assert ledger.done(("jobs", 1), 7, generations[1])
    assert not ledger.done(("jobs", 2), 7, generations[1])

    assert ledger.commits() == {("jobs", 0): (7, ""), ("jobs", 1): (8, ""), ("jobs", 2): (7, "")}


def test_metadata_that_is_too_long_is_cut(ledger: OffsetLedger) -> None:
    """What doesn't fit into a commit's metadata is done again by the next owner; nothing else is, and nothing is lost."""
    generation = ledger.assign(P, 0)
    begun(ledger, *range(20_000))
    for offset in range(1, 20_000, 2):
        ledger.done(P, offset, generation)

    commit = ledger.commits()[P]
    again = begun(successor(commit), *range(20_000))

    assert LARGEST_METADATA - 8 < len(commit[1]) <= LARGEST_METADATA
    kept = next(offset for offset in range(1, 20_000, 2) if offset in set(again))
    assert kept > 1_000
    assert again == [offset for offset in range(20_000) if offset % 2 == 0 or offset >= kept]


def test_threads_share_a_ledger(ledger: OffsetLedger) -> None:
    """Reading, acks from several threads and commits go on beside each other, and end with everything committed."""
    generation = ledger.assign(P, 0)
    count = 8_000
    begun(ledger, *range(count // 2))

    def ack(first: int, last: int) -> None:
        for offset in range(first, last, 4):
            assert ledger.done(P, offset, generation)

    threads = [Thread(ack, (start, count // 2), name="ack") for start in range(4)]
    threads.append(Thread(begun, (ledger, *range(count // 2, count)), name="read"))
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen += [commit[0] for commit in ledger.commits().values()]
    for thread in threads:
        thread.join(30)
    seen += [commit[0] for commit in ledger.commits().values()]

    assert seen == sorted(seen)
    assert seen[-1] == count // 2
    assert ledger.in_flight(P) == count // 2


def test_what_was_done_of_a_former_log_says_nothing(ledger: OffsetLedger) -> None:
    """A log that was made anew under its old name begins at 0, wherever a commit of the former one stands; its own counts."""
    generation = ledger.assign(P, 4, None, "old")
    begun(ledger, *range(4, 9))
    for offset in (4, 6, 7):
        ledger.done(P, offset, generation)
    commit = ledger.commits()[P]

    for log, first, todo in [("old", 5, [5, 8]), ("", 5, [5, 8]), ("new", 0, [*range(9)])]:
        assert read_commit(*commit, log)[0] == first
        ledger.assign(P, *commit, log)
        assert begun(ledger, *range(first, 9)) == todo


def test_a_commit_names_its_log_however_long_it_is(ledger: OffsetLedger) -> None:
    """Also where nothing is done ahead, or more than a commit has room for."""
    log = "a" * 22
    generation = ledger.assign(P, 0, None, log)
    begun(ledger, *range(20_000))
    ledger.done(P, 0, generation)
    assert ledger.commits() == {P: (1, f"boost1 1  {log}")}

    for offset in range(3, 20_000, 2):
        ledger.done(P, offset, generation)
    commit = ledger.commits()[P]

    assert LARGEST_METADATA - 8 < len(commit[1]) <= LARGEST_METADATA
    assert (read_commit(*commit, log)[0], read_commit(*commit, "b")[0]) == (1, 0)


# --- metadata of others --------------------------------------------------------------------------------------

numbers = st.integers(-3, 300).map(lambda number: format(number, "x"))
pairs = st.lists(st.lists(numbers, min_size=1, max_size=3).map(".".join), max_size=4).map(",".join)
near_misses = st.builds("{} {} {}".format, st.sampled_from(["boost1", "boost2", ""]), numbers, pairs)


@given(metadata=st.text() | near_misses | st.none(), base=st.integers(0, 300))
def test_metadata_of_others_never_skips_the_first_offset(metadata: str | None, base: int) -> None:
    """Whatever a tool wrote beside the committed offset, the partition is taken over, and read from that offset on."""
    ledger = OffsetLedger()

    ledger.assign(P, base, metadata)

    assert begun(ledger, base) == [base]


@pytest.mark.parametrize(
    "metadata", ["boost1 5 1.1", "boost2 4 1.1", "boost1 4 1.1,0.1", "boost1 4 1.1,1.-1", "boost1 4 1.1.1", "boost1 4"]
)
def test_metadata_that_isnt_this_commits_says_nothing(ledger: OffsetLedger, metadata: str) -> None:
    """After a reset of the group's offsets, or from another version, metadata is ignored whole; all is done again."""
    ledger.assign(P, 4, metadata)

    assert begun(ledger, *range(4, 9)) == [4, 5, 6, 7, 8]


# --- against a model -----------------------------------------------------------------------------------------


class Model(RuleBasedStateMachine):
    """A log with holes, read by one owner after the other; the model knows of each message what became of it."""

    @initialize(log=st.lists(st.integers(0, 60), min_size=1, unique=True).map(sorted))
    def start(self, log: list[int]) -> None:
        """Write the log; begin as its first owner."""
        self.log = log
        self.ledger = OffsetLedger()
        self.committed = (0, "")
        self.saved: set[int] = set()
        self.generations: list[int] = []
        self.take_over()

    @rule()
    def take_over(self) -> None:
        """Go on from the last commit, as another owner would: only what was committed is known as done."""
        if self.generations:
            self.ledger.revoke(P)
        self.done_ = set(self.saved)
        self.in_flight: set[int] = set()
        self.released: set[int] = set()
        self.read_ = [offset for offset in self.log if offset < self.committed[0]]
        self.generations.append(self.ledger.assign(P, *self.committed))

    @precondition(lambda self: len(self.read_) < len(self.log))
    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        """Read on: exactly what isn't done is begun."""
        for offset in self.log[len(self.read_) :][:count]:
            assert self.ledger.begin(P, offset) == (offset not in self.done_)
            self.read_.append(offset)
            if offset not in self.done_:
                self.in_flight.add(offset)

    @rule(data=st.data())
    def seek_back(self, data: st.DataObject) -> None:
        """Read something again: only what was released is begun."""
        offset = data.draw(st.sampled_from(self.log))
        if offset in self.read_:
            assert self.ledger.begin(P, offset) == (offset in self.released)
            if offset in self.released:
                self.released.remove(offset)
                self.in_flight.add(offset)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        """Ack something that runs."""
        offset = data.draw(st.sampled_from(sorted(self.in_flight)))
        assert self.ledger.done(P, offset, self.generations[-1])
        self.in_flight.remove(offset)
        self.done_.add(offset)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def undone(self, data: st.DataObject) -> None:
        """Release something that runs."""
        offset = data.draw(st.sampled_from(sorted(self.in_flight)))
        assert self.ledger.undone(P, offset, self.generations[-1])
        self.in_flight.remove(offset)
        self.released.add(offset)

    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        """Acks of former owners are refused; one too many of the present owner is harmless."""
        offset = data.draw(st.sampled_from(self.log))
        for generation in self.generations[:-1]:
            assert not self.ledger.done(P, offset, generation)
            assert not self.ledger.undone(P, offset, generation)
        if offset in self.done_ and offset in self.read_:
            assert self.ledger.done(P, offset, self.generations[-1])

    @rule()
    def commit(self) -> None:
        """Commit the first offset to do; with it, another owner begins exactly what isn't done."""
        self.committed = self.ledger.commits().get(P, self.committed)
        self.saved = set(self.done_)
        offset = self.committed[0]

        assert self.ledger.commits() == {}
        assert {one for one in self.log if one < offset} <= self.done_
        assert offset > max((one for one in self.read_ if one < self.first_to_do()), default=-1)
        rest = [one for one in self.log if one >= offset]
        assert begun(successor(self.committed), *rest) == [one for one in rest if one not in self.done_]

    def first_to_do(self) -> float:
        """Return the first offset that is not done; infinity when all are."""
        return next((offset for offset in self.log if offset not in self.done_), math.inf)

    @invariant()
    def counts(self) -> None:
        """What is in flight, and how far reading went ahead, agree."""
        waiting = sorted(self.in_flight | self.released)
        read_last = max(self.read_, default=-1)
        assert self.ledger.in_flight(P) == len(self.in_flight)
        if waiting:
            assert self.ledger.gap(P) >= read_last - waiting[0]
        else:
            assert self.ledger.gap(P) == 0


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
