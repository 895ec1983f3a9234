"""Store ``memory``: keyed bytes that expire, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from boost_core.builtin.memory_store import MemoryStore
from boost_core.contracts.specs import StoreSpec
from boost_core.errors import Closed
from boost_core.testing import FakeClock

PATIENCE = 10.0
"""Seconds after which a blocked call counts as hanging."""

SPEC = StoreSpec(name="memory", factory="boost_core.builtin.memory_store:MemoryStore", shared=False)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    """Return an open store on that clock."""
    store = MemoryStore(None)
    store.spec, store.clock = SPEC, clock
    store.open()
    return store


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return threads for calls that block."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


def blocked(pool: ThreadPoolExecutor, store: MemoryStore, *keys: str) -> Future[Mapping[str, bytes]]:
    """Return the future of a wait that has begun."""
    future = pool.submit(store.wait, keys, PATIENCE * 2)  # its own timeout must not pass for a wake-up
    deadline = time.monotonic() + PATIENCE
    while not store._awaited:
        assert time.monotonic() < deadline, "the wait never began"
        time.sleep(0.001)
    return future


def test_get_returns_what_was_put(store: MemoryStore) -> None:
    """Items come back under their keys; keys that don't exist are left out."""
    store.put({"a": b"1", "b": b""}, 60.0)

    assert store.get(["a", "b", "c"]) == {"a": b"1", "b": b""}
    assert store.get([]) == {}


def test_put_replaces_value_and_time(store: MemoryStore, clock: FakeClock) -> None:
    """A later put replaces the value, and its own time to live holds."""
    store.put({"a": b"1"}, 100.0)
    store.put({"a": b"2"}, 1.0)

    assert store.get(["a"]) == {"a": b"2"}
    clock.advance(1)
    assert store.get(["a"]) == {}


def test_items_live_until_their_time(store: MemoryStore, clock: FakeClock) -> None:
    """An item exists just short of its time to live, and no longer at it."""
    store.put({"a": b"1"}, 5.0)

    clock.advance(4.999)
    assert store.get(["a"]) == {"a": b"1"}
    clock.advance(0.001)
    assert store.get(["a"]) == {}
    assert store.delete(["a"]) == 0


def test_delete_counts_what_existed(store: MemoryStore) -> None:
    """Deleting returns how many of the keys were there, each counted once."""
    store.put({"a": b"1", "b": b"2"}, 60.0)

    assert store.delete(["a", "a", "c"]) == 1
    assert store.get(["a", "b"]) == {"b": b"2"}


def test_expired_items_go_away_by_later_writes(store: MemoryStore, clock: FakeClock) -> None:
    """The store doesn't grow with items that expired and nobody asks for, nor lose those that live."""
    store.put({f"long{n}": b"" for n in range(500)}, 1_000_000.0)
    for n in range(5_000):
        store.put({f"short{n}": b""}, 1.0)
        clock.advance(0.1)

    assert len(store._items) < 1_100
    assert len(store.get([f"long{n}" for n in range(500)])) == 500


def test_wait_returns_at_once_what_exists(store: MemoryStore) -> None:
    """A wait for keys of which some exist returns those without waiting."""
    store.put({"a": b"1"}, 60.0)

    assert store.wait(["a", "b"], PATIENCE * 10) == {"a": b"1"}


def test_put_ends_a_wait(store: MemoryStore, pool: ThreadPoolExecutor) -> None:
    """A blocked wait returns with a key of its own that is put, and sleeps through others."""
    waiting = blocked(pool, store, "a", "b")

    store.put({"c": b"3"}, 60.0)
    store.put({"b": b"2"}, 60.0)

    assert waiting.result(PATIENCE) == {"b": b"2"}


def test_wait_ends_empty_after_its_timeout(store: MemoryStore) -> None:
    """A wait for what never comes returns empty after its timeout, though the store's clock stands."""
    started = time.monotonic()

    assert store.wait(["a"], 0.02) == {}
    assert time.monotonic() - started >= 0.02


def test_wake_ends_a_wait(store: MemoryStore, pool: ThreadPoolExecutor) -> None:
    """A woken wait returns at once."""
    waiting = blocked(pool, store, "a")

    store.wake()

    assert waiting.result(PATIENCE) == {}


def test_wake_before_a_wait_is_kept_once(store: MemoryStore, pool: ThreadPoolExecutor) -> None:
    """A wake that comes just before a wait blocks lets that wait return, and only that one."""
    store.wake()
    assert pool.submit(store.wait, ["a"], PATIENCE * 2).result(PATIENCE) == {}

    waiting = blocked(pool, store, "a")
    store.put({"a": b"1"}, 60.0)
    assert waiting.result(PATIENCE) == {"a": b"1"}


def test_close_ends_a_wait_and_refuses_further_use(store: MemoryStore, pool: ThreadPoolExecutor) -> None:
    """Closing lets a blocked wait return; every later call raises Closed; closing again does nothing."""
    waiting = blocked(pool, store, "a")

    store.close()
    store.close()

    assert waiting.result(PATIENCE) == {}
    for call in (
        lambda: store.get(["a"]),
        lambda: store.put({}, 1.0),
        lambda: store.delete([]),
        lambda: store.wait([], 0),
    ):
        with pytest.raises(Closed, match="store 'memory' is closed"):
            call()


def test_many_threads_lose_nothing(store: MemoryStore, pool: ThreadPoolExecutor) -> None:
    """Items that four threads put at once are all there."""

    def fill(n: int) -> None:
        for i in range(500):
            store.put({f"{n}.{i}": b"x"}, 60.0)

    list(pool.map(fill, range(4)))

    assert len(store.get([f"{n}.{i}" for n in range(4) for i in range(500)])) == 2_000
