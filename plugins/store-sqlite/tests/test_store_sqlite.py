"""The store through its contract."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from boost_core.options import build_options
from boost_core.plugin import BadOption, Closed, StoreUnavailable, sqlitefile
from boost_store_sqlite import plugin
from boost_store_sqlite.plugin import SPEC, SqliteStoreOptions
from boost_store_sqlite.store import SqliteStore


class HandClock:
    """A clock that tests move."""

    now = 1_800_000_000.0

    def time(self):
        """Return the moved time."""
        return self.now

    def monotonic(self):
        """Return the moved time."""
        return self.now


def build_store(path, clock=None, **options):
    """Return an opened store on a file."""
    store = SqliteStore(build_options("store 'sqlite'", SqliteStoreOptions, {"path": str(path), **options}))
    store.spec = SPEC
    if clock is not None:
        store.clock = clock
    store.open()
    return store


@pytest.fixture
def clock():
    """A clock that stands still."""
    return HandClock()


@pytest.fixture
def store(tmp_path, clock):
    """An opened store of a fresh file."""
    store = build_store(tmp_path / "s.db", clock)
    yield store
    store.close()


def run_python(code, *arguments):
    """Run code in a fresh interpreter; return its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout


def test_put_and_get(store):
    """Values come back as they were put, a later one instead of an earlier; unknown keys are left out."""
    store.put({"a": b"1", "b": b"\x00" * 10, "ключ": b""}, 60)
    store.put({"a": b"2"}, 60)

    assert store.get(["a", "b", "ключ", "nope"]) == {"a": b"2", "b": b"\x00" * 10, "ключ": b""}
    assert store.get([]) == {}


def test_many_keys(store):
    """More keys than one statement takes are read and deleted all the same."""
    items = {f"k{n}": b"%d" % n for n in range(1234)}
    store.put(items, 60)

    assert store.get(list(items)) == items
    assert store.delete(list(items)) == 1234


def test_values_expire(store, clock):
    """A value is gone after its time to live, counted anew from each put."""
    store.put({"a": b"1", "b": b"1"}, 10)
    clock.now += 9
    store.put({"b": b"2"}, 10)
    clock.now += 2

    assert store.get(["a", "b"]) == {"b": b"2"}
    assert store.delete(["a", "b"]) == 1


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_expired_rows_never_pile_up(store, clock, size):
    """However many values a put brings: as long as they come they replace expired ones, and a heap of those shrinks."""
    store.put({f"old{n}": b"x" for n in range(3000)}, 10)
    clock.now += 11
    for put in range(3000 // size + 1):
        store.put({f"new{put}-{n}": b"x" for n in range(size)}, 0.5)
        clock.now += 1

    with store._file.read() as connection:
        assert connection.execute("SELECT count(*) FROM kv").fetchone()[0] <= size


def test_delete(store):
    """Deleting says how many existed."""
    store.put({"a": b"1", "b": b"2"}, 60)

    assert store.delete(["a", "nope"]) == 1
    assert store.get(["a", "b"]) == {"b": b"2"}


def test_put_is_all_or_nothing(store):
    """A put that fails half way leaves nothing behind."""
    with pytest.raises(StoreUnavailable):
        store.put({"a": b"1", "b": None}, 60)

    assert store.get(["a"]) == {}


def test_wait_returns_what_is_there(store):
    """Waiting returns at once with all keys that exist."""
    store.put({"a": b"1", "b": b"2"}, 60)

    assert store.wait(["a", "b", "c"], 30) == {"a": b"1", "b": b"2"}
    assert store.wait(["c"], 0.01) == {}


def test_put_of_another_process_ends_wait(store, monkeypatch):
    """A put elsewhere wakes the waiter: it doesn't have to look by itself."""
    monkeypatch.setattr("boost_store_sqlite.store.LOOK_SECONDS", 1e9)
    got = []
    waiter = threading.Thread(target=lambda: got.append(store.wait(["result"], 60)))
    waiter.start()
    code = (
        "import sys; from boost_core.options import build_options\n"
        "from boost_store_sqlite.plugin import SPEC, SqliteStoreOptions\n"
        "from boost_store_sqlite.store import SqliteStore\n"
        "store = SqliteStore(build_options('s', SqliteStoreOptions, {'path': sys.argv[1]})); store.spec = SPEC\n"
        "store.open(); store.put({'other': b'0'}, 1e6); store.put({'result': b'done'}, 1e9); store.close()\n"
    )

    run_python(code, store.path)
    waiter.join(10)

    assert got == [{"result": b"done"}]


def test_wake_ends_wait(store):
    """``wake`` lets a wait return empty-handed, also one that starts just after it."""
    got = []
    waiter = threading.Thread(target=lambda: got.append(store.wait(["a"], 60)))
    waiter.start()
    store.wake()
    waiter.join(10)
    assert got == [{}]

    store.wake()
    assert store.wait(["a"], 60) == {}


def test_close_ends_wait(store):
    """``close`` lets a wait return; afterwards every use raises ``Closed``."""
    got = []
    waiter = threading.Thread(target=lambda: got.append(store.wait(["a"], 60)))
    waiter.start()
    while not store._waiting.locked():
        pass
    store.close()
    store.close()
    waiter.join(10)

    assert got == [{}]
    for use in (
        lambda: store.get(["a"]),
        lambda: store.put({}, 1),
        lambda: store.delete([]),
        lambda: store.wait([], 1),
    ):
        with pytest.raises(Closed):
            use()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_fork(store):
    """A forked child opens a store of its own; the parent's goes on."""
    store.put({"a": b"1"}, 60)
    child = os.fork()
    if child == 0:
        try:
            store.after_fork()
            fresh = build_store(store.path, store.clock)
            fresh.put({"b": b"2"}, 60)
            fresh.close()
        except BaseException:
            os._exit(1)
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert store.wait(["b"], 30) == {"b": b"2"}
    assert store.get(["a"]) == {"a": b"1"}


def test_files_are_private(store):
    """All files and folders belong to the user alone."""
    store.put({"a": b"1"}, 60)
    store.wait(["b"], 0)

    for path in Path(store.path).parent.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability(tmp_path, durability, synchronous):
    """The durability asked for is what SQLite is set to."""
    store = build_store(tmp_path / "s.db", durability=durability)
    with store._file.locked() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    store.close()


def test_wrong_durability():
    """A durability that doesn't exist is a ``BadOption``."""
    with pytest.raises(BadOption, match="it is 'process' or 'power'"):
        build_options("store 'sqlite'", SqliteStoreOptions, {"durability": "disk"})


def test_unusable_files(store, monkeypatch):
    """A broker's file, a read-only file and a network file system are refused by name."""
    with store._file.locked() as connection:
        connection.execute("PRAGMA application_id = 1")
    store.close()
    with pytest.raises(StoreUnavailable, match=r"store 'sqlite': .*s\.db is the database of another program"):
        build_store(store.path)
    store.path.chmod(0o400)
    with pytest.raises(StoreUnavailable, match="is read-only"):
        build_store(store.path)
    monkeypatch.setattr(sqlitefile, "filesystem_of", lambda _: "cifs")
    with pytest.raises(StoreUnavailable, match=r"network file system \(cifs\)"):
        build_store(store.path)


def test_default_path(tmp_path, monkeypatch):
    """Without a path the file is the project's; ``BOOST_SQLITE_PATH`` puts it beside the broker's."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("BOOST_SQLITE_PATH", raising=False)
    default = SqliteStore(SqliteStoreOptions()).path
    assert default.is_relative_to(tmp_path / "data" / "boost")
    assert default.name == "store.db"

    monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "mine.db"))
    assert SqliteStore(SqliteStoreOptions()).path == tmp_path / "mine-store.db"


def test_plugin_imports_no_sqlite():
    """The light module names what core needs, without importing SQLite."""
    assert run_python("import sys, boost_store_sqlite.plugin; print('sqlite3' in sys.modules)") == "False\n"
    assert plugin.boost_stores() == [SPEC]
