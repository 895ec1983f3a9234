"""The SQLite file that many processes write."""

from __future__ import annotations

import functools
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest
from boost_core.errors import BrokerUnavailable, Closed
from boost_core.plugin import locks, place, sqlitefile
from boost_core.plugin.sqlitefile import SqliteFile, filesystem_of, project_file

TABLE = "CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB); CREATE INDEX t_b ON t (b)"


def build_file(path, **changes):
    """Return an unopened file with one migration."""
    facts = {
        "path": path,
        "application_id": 4711,
        "migrations": (TABLE,),
        "package": "boost-thing",
        "fail": functools.partial(BrokerUnavailable, "thing"),
        "timeout": 5.0,
    }
    return SqliteFile(**{**facts, **changes})


@pytest.fixture
def file(tmp_path):
    """An opened file."""
    file = build_file(tmp_path / "data" / "a.db")
    file.open()
    yield file
    file.close()


def rows(file):
    """Return what the table holds."""
    with file.read() as connection:
        return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY a")]


def insert(file, number, **given):
    """Insert one row."""
    with file.write(**given) as connection:
        connection.execute("INSERT INTO t (a) VALUES (?)", (number,))


def opened(path):
    """Return whether this process has a descriptor of a file."""
    wanted = path.stat()
    for descriptor in range(256):
        try:
            if os.path.samestat(os.fstat(descriptor), wanted):
                return True
        except OSError:
            continue
    return False


def pragma(file, name):
    """Return a setting of the file's connection."""
    with file.locked() as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def run_python(code, *arguments, **given):
    """Run code in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False, **given)


def test_file_and_folder_are_private(file):
    """The file and what stands beside it are the user's own, like the folder made for them."""
    insert(file, 1)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()}
    assert modes == {"a.db": 0o600, "a.db.lock": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_write_commits_and_rolls_back(file):
    """A write is kept at its end, undone as a whole by an exception, and seen by other openers."""
    insert(file, 1)
    with pytest.raises(KeyError):
        with file.write() as connection:
            connection.execute("INSERT INTO t (a) VALUES (2)")
            raise KeyError

    other = build_file(file.path)
    other.open()

    assert rows(file) == rows(other) == [1]
    other.close()


def test_two_openers_in_a_process_keep_the_log(file):
    """What is written beside a second opener of the same process is there for others, also once one of them left."""
    second = build_file(file.path)
    second.open()
    insert(file, 1)
    leave = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('INSERT INTO t VALUES (2, 0)');"
    read = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT a FROM t ORDER BY a').fetchall())"

    left = run_python(f"{leave} db.commit(); db.close()", file.path)
    insert(file, 3)
    insert(second, 4)

    assert left.returncode == 0, left.stderr
    assert run_python(read, file.path).stdout == "[(1,), (2,), (3,), (4,)]\n"
    second.close()


def test_a_link_to_a_file_to_be_made(tmp_path):
    """A link whose file isn't there yet leads to a file as private as any."""
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    file = build_file(tmp_path / "link.db")
    file.open()
    insert(file, 1)

    assert rows(file) == [1]
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600
    file.close()


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability(tmp_path, durability, synchronous):
    """``process`` is NORMAL to SQLite, ``power`` FULL; both write ahead."""
    file = build_file(tmp_path / "a.db", durability=durability)
    file.open()

    assert pragma(file, "synchronous") == synchronous
    assert pragma(file, "journal_mode") == "wal"
    file.close()


def test_unknown_durability(tmp_path):
    """Another durability is refused by name, before any file is made."""
    with pytest.raises(BrokerUnavailable, match="durability 'disk' is unknown"):
        build_file(tmp_path / "a.db", durability="disk").open()

    assert not list(tmp_path.iterdir())


def test_migrations_bring_old_files_up(tmp_path):
    """A file of an older schema is brought up to date, keeping its rows."""
    old = build_file(tmp_path / "a.db")
    old.open()
    insert(old, 1)
    old.close()

    new = build_file(tmp_path / "a.db", migrations=(TABLE, "ALTER TABLE t ADD COLUMN c"))
    new.open()

    with new.read() as connection:
        assert connection.execute("SELECT a, c FROM t").fetchall() == [(1, None)]
    assert pragma(new, "user_version") == 2
    new.close()


def test_newer_schema_is_refused(file):
    """A file of a newer schema is left alone; the error says both versions and what to upgrade."""
    with file.locked() as connection:
        connection.execute("PRAGMA user_version = 7")
    file.close()

    with pytest.raises(BrokerUnavailable) as caught:
        build_file(file.path).open()

    assert str(caught.value) == (
        f"broker 'thing': {file.path} has schema version 7; this boost-thing knows versions up to 1\n"
        "  Upgrade the package: pip install --upgrade boost-thing"
    )


def test_other_programs_databases_are_refused(tmp_path):
    """A database of another application, marked or not, is refused and stays as it is."""
    for statement in ("PRAGMA application_id = 99", "CREATE TABLE users (id)"):
        path = tmp_path / f"{len(statement)}.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE customers (id)")
            connection.execute(statement)
        connection.close()
        before = path.read_bytes()

        with pytest.raises(BrokerUnavailable, match="is the database of another program"):
            build_file(path).open()

        assert path.read_bytes() == before


def test_not_a_database(tmp_path):
    """A file that is no database is named, with the way out."""
    path = tmp_path / "a.db"
    path.write_text("Dear diary, " * 100)

    with pytest.raises(BrokerUnavailable, match=r"a\.db is not an SQLite database\n  Move that file away"):
        build_file(path).open()

    assert path.read_text().startswith("Dear diary")


def test_read_only_file_and_folder(tmp_path):
    """A read-only file, or one in a read-only folder, is refused at once, for root too."""
    path = tmp_path / "a.db"
    path.touch()
    path.chmod(0o444)
    with pytest.raises(BrokerUnavailable, match=r"a\.db is read-only\n  Name a place that can be written"):
        build_file(path).open()

    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(BrokerUnavailable, match="its folder is read-only"):
            build_file(path).open()
    finally:
        tmp_path.chmod(0o755)


def test_place_that_can_not_be_made(tmp_path):
    """A path below a file is refused with the system's reason."""
    (tmp_path / "file").touch()

    with pytest.raises(BrokerUnavailable, match="can't be used: "):
        build_file(tmp_path / "file" / "a.db").open()


def test_network_file_system_is_refused(tmp_path, monkeypatch):
    """A network file system is refused by its name and with the remedy, before anything is made there."""
    monkeypatch.setattr(sqlitefile, "filesystem_of", lambda _: "nfs4")
    path = tmp_path / "a.db"

    with pytest.raises(BrokerUnavailable) as caught:
        build_file(path).open()

    assert str(caught.value) == (
        f"broker 'thing': {path} is on a network file system (nfs4), whose locks can't be relied on\n"
        "  Name a place that can be written on a local disk: BOOST_SQLITE_PATH=/path/to/file.db, or the option path."
    )
    assert not list(tmp_path.iterdir())


def test_filesystem_of_reads_the_mounts(tmp_path, monkeypatch):
    """The deepest mount decides, a later one hides an earlier one, and escapes are read."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:9 / {tmp_path}/my\\040data rw,relatime shared:1 - xfs /dev/sdb rw\n"
        f"3 1 0:9 / {tmp_path}/my\\040data rw,relatime - fuse.sshfs me@there rw\n"
    )
    monkeypatch.setattr(place, "_MOUNTS", mounts)

    assert filesystem_of(tmp_path / "my data" / "deep") == "fuse.sshfs"
    assert filesystem_of(tmp_path / "my data2") == "ext4"
    monkeypatch.setattr(place, "_MOUNTS", tmp_path / "missing")
    assert filesystem_of(tmp_path) is None


def test_old_sqlite_is_refused(tmp_path, monkeypatch):
    """An SQLite older than what the statements need is named."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))

    with pytest.raises(BrokerUnavailable, match=r"3\.35 is needed"):
        build_file(tmp_path / "a.db").open()


def test_unsafe_sqlite_is_refused(tmp_path, monkeypatch):
    """An SQLite without thread safety is refused."""
    monkeypatch.setattr(sqlite3, "threadsafety", 0)

    with pytest.raises(BrokerUnavailable, match="without thread safety"):
        build_file(tmp_path / "a.db").open()


def test_lock_has_a_deadline(file):
    """Whoever holds the lock too long makes others fail by their own deadline, and only them."""
    held = os.open(f"{file.path}.lock", os.O_RDWR)
    assert locks.lock(held)

    with pytest.raises(BrokerUnavailable, match="kept locked by another process"):
        insert(file, 1, timeout=0.05)

    os.close(held)
    insert(file, 2)
    assert rows(file) == [2]


def test_foreign_writer_has_a_deadline(file):
    """A program that holds SQLite's own lock makes a write fail by its deadline too."""
    foreign = sqlite3.connect(file.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")

    with pytest.raises(BrokerUnavailable, match="kept locked by another program"):
        insert(file, 1, timeout=0.01)

    foreign.execute("ROLLBACK")
    foreign.close()
    insert(file, 2)


def test_threads_take_turns(file):
    """Many threads write at once, and nothing is lost."""
    threads = [
        threading.Thread(target=lambda start=start: [insert(file, start * 100 + n) for n in range(100)])
        for start in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert rows(file) == list(range(800))


def interrupted(work, count):
    """Run ``work`` with a KeyboardInterrupt after its ``count``-th call into C; return whether it came to that."""
    left = count

    def profile(_frame, event, _function):
        nonlocal left
        left -= event == "c_return"
        if left < 0:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may meet a destructor
@pytest.mark.parametrize("use", ["write", "write_one", "read"])
def test_ctrl_c_leaves_the_file_to_the_other_threads(file, use):
    """Wherever a KeyboardInterrupt meets the main thread, another thread gets the file at once."""
    uses = {
        "write": lambda: insert(file, None),
        "write_one": lambda: file.write_one("INSERT INTO t (a) VALUES (?)", (None,)),
        "read": lambda: rows(file),
    }
    failures = []

    def other():
        try:
            insert(file, None, timeout=0.0)
        except BrokerUnavailable as error:
            failures.append(error)

    count = 0
    while interrupted(uses[use], count):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        count += 1

    assert count > 3
    assert failures == []


def test_a_signal_handler_does_not_break_into_a_transaction(file):
    """Using the file while this very thread is using it is refused, not waited for."""
    with (
        file.write() as connection,
        pytest.raises(BrokerUnavailable, match="in use by what a signal handler of this thread interrupted"),
    ):
        connection.execute("INSERT INTO t (a) VALUES (1)")
        rows(file)


def test_log_is_copied_back(file):
    """The write-ahead log is copied into the file as it grows, so it stays within bounds."""
    blob = os.urandom(20_000)
    for number in range(1000):
        with file.write() as connection:
            connection.execute("INSERT INTO t VALUES (?, ?)", (number, blob))

    assert Path(f"{file.path}-wal").stat().st_size < 5 * 4096 * sqlitefile.CHECKPOINT_PAGES
    assert file.path.stat().st_size > 10_000_000


def test_long_log_is_shortened(file):
    """A log that one huge write made long is cut once it is copied back."""
    with file.write() as connection:
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((n, bytes(1_000_000)) for n in range(20)))
    assert Path(f"{file.path}-wal").stat().st_size > 20_000_000

    for number in range(100, 120):
        insert(file, number)

    assert Path(f"{file.path}-wal").stat().st_size <= sqlitefile.LONGEST_LOG


def test_disk_errors_name_the_remedy(file):
    """A full disk is told as such, and what was written before stays."""
    insert(file, 1)
    with file.locked() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")  # to SQLite that is a full disk

    with pytest.raises(BrokerUnavailable, match="can't grow: the disk is full"):
        with file.write() as connection:
            connection.execute("INSERT INTO t VALUES (2, ?)", (bytes(100_000),))

    assert rows(file) == [1]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_taken_away_is_not_written(file, replaced):
    """What went there would be gone with the last process that has it open; who uses it is told, until it is back."""
    kept = file.path.with_name("kept.db")
    file.path.rename(kept)
    if replaced:
        file.path.touch()

    with pytest.raises(BrokerUnavailable) as gone:
        insert(file, 1)
    kept.rename(file.path)
    insert(file, 2)

    assert str(gone.value) == (
        f"broker 'thing': {file.path} was deleted or replaced while it was in use\n"
        "  Put it back, or start this process anew: it then uses the file that is there."
    )
    assert rows(file) == [2]


def test_closed_file(file):
    """Use after close raises ``Closed``, closing again does nothing, opening again works."""
    file.close()
    file.close()
    with pytest.raises(Closed), file.write():
        pass

    file.open()
    file.open()
    insert(file, 1)
    assert rows(file) == [1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_fork_inherits_no_connection(file):
    """A forked child has none of the parent's locks; both go on, and the child opens the file anew."""
    insert(file, 1)
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(Closed), file.read():
                pass
            assert not opened(file.path)
            fresh = build_file(file.path)
            fresh.open()
            insert(fresh, 2)
            fresh.close()
        except BaseException:
            os._exit(1)
        os._exit(0)
    insert(file, 3)

    assert os.waitpid(child, 0)[1] == 0
    insert(file, 4)
    assert rows(file) == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_fork_beside_writing_threads(file):
    """Forks in the middle of other threads' writes harm neither side."""
    stop = threading.Event()

    def write():
        for number in range(1_000_000, 2_000_000):
            if stop.is_set():
                return
            insert(file, number)

    thread = threading.Thread(target=write)
    thread.start()
    codes = []
    for number in range(10):
        child = os.fork()
        if child == 0:
            try:
                fresh = build_file(file.path)
                fresh.open()
                insert(fresh, number)
                fresh.close()
            except BaseException:
                os._exit(1)
            os._exit(0)
        codes.append(os.waitpid(child, 0)[1])
    stop.set()
    thread.join(30)

    assert codes == [0] * 10
    assert rows(file)[:10] == list(range(10))
    assert pragma(file, "integrity_check") == "ok"


def test_import_touches_nothing():
    """Importing the module opens no file and prints nothing."""
    done = run_python("import sys; import boost_core.plugin; print('sqlite3' in sys.modules)")

    assert (done.stdout, done.stderr) == ("False\n", "")


@attrs.frozen
class Place:
    """Where a project lies in a test."""

    folder: Path
    data: Path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a deeper folder as the working one."""
    folder = tmp_path / "proj"
    deep = folder / "src" / "deep"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return Place(folder, tmp_path / "data")


def test_project_file_is_one_a_project(project, monkeypatch):
    """Every folder of a project has the same file, another project another one."""
    environ = {"XDG_DATA_HOME": str(project.data)}
    (project.folder / "pyproject.toml").touch()

    path = project_file("queue.db", environ=environ)
    monkeypatch.chdir(project.folder)
    again = project_file("queue.db", environ=environ)
    monkeypatch.chdir(project.folder.parent)
    other = project_file("queue.db", environ=environ)

    assert path == again != other
    assert path.parent.parent == project.data / "boost"
    assert path.parent.name.startswith("proj-")
    assert len(path.parent.name) == len("proj-") + 8
    assert not project.data.exists()


def test_project_is_the_nearest_mark(project):
    """A repository inside a project is a project of its own."""
    (project.folder / "pyproject.toml").touch()
    (project.folder / "src" / ".git").mkdir()

    assert project_file("queue.db", environ={}).parent.name.startswith("src-")


def test_chosen_path_wins(project):
    """``BOOST_SQLITE_PATH`` names the file, and a tag makes others beside it."""
    environ = {"BOOST_SQLITE_PATH": str(project.data / "jobs.v1.db"), "XDG_DATA_HOME": "/elsewhere"}

    assert project_file("queue.db", environ=environ) == project.data / "jobs.v1.db"
    assert project_file("store.db", tag="-store", environ=environ) == project.data / "jobs.v1-store.db"
