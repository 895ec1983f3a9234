"""The bell that wakes waiting processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boost_core.plugin.bell import Bell


@pytest.fixture
def bell(tmp_path):
    """An open bell."""
    bell = Bell(tmp_path / "bells")
    bell.open()
    yield bell
    bell.close()


def another(bell):
    """Return the bell of the same folder as another process would open it."""
    other = Bell(bell._folder)
    other.open()
    return other


def test_ring_wakes_marked_seat(bell):
    """A marked seat is rung, also when the ring comes before the wait."""
    seat = bell.seat()

    seat.mark()
    another(bell).ring()

    assert seat.wait(5)


def test_ring_leaves_others_alone(bell):
    """A seat that isn't marked is not rung, and a mark is good for one ring."""
    seat = bell.seat()
    bell.ring()
    assert not seat.wait(0)

    seat.mark()
    bell.ring()
    assert seat.wait(5)
    bell.ring()
    assert not seat.wait(0)


def test_unmark(bell):
    """A seat that asks no longer is not rung."""
    seat = bell.seat()
    seat.mark()
    seat.unmark()

    bell.ring()

    assert not seat.wait(0)


def test_wake_interrupts_wait(bell):
    """``wake`` from another thread ends a wait, whether or not the seat is marked."""
    seat = bell.seat()
    waited = threading.Thread(target=seat.wait, args=(60,))
    waited.start()

    seat.wake()
    waited.join(5)

    assert not waited.is_alive()


def test_many_wakes_do_not_block(bell):
    """Waking a seat that nobody looks at never blocks, however often, and one wait takes all of it."""
    seat = bell.seat()

    for _ in range(70_000):
        seat.wake()

    assert seat.wait(5)
    assert not seat.wait(0)


def test_seats_differ_until_closed(bell):
    """Each waiter has a seat of its own; a closed one is given out again."""
    first, second = bell.seat(), another(bell).seat()
    first.mark()
    bell.ring()
    assert first.wait(5)
    assert not second.wait(0)

    number = first._number
    first.close()
    first.close()

    assert bell.seat()._number == number


def test_seat_of_dead_process_is_free(bell):
    """A process killed with -9 leaves neither a taken seat nor anything that ``ring`` stumbles over."""
    code = (
        "import sys, time; from pathlib import Path; from boost_core.plugin.bell import Bell\n"
        "bell = Bell(Path(sys.argv[1])); bell.open(); seat = bell.seat(); seat.mark()\n"
        "print(seat._number, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(bell._folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    number = int(child.stdout.readline())
    child.kill()
    child.communicate()

    bell.ring()
    seat = bell.seat()

    assert seat._number == number
    assert not seat.wait(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_fork_leaves_seat_with_parent(bell):
    """After a forked child let go of it, the seat ends with the parent's close."""
    seat = bell.seat()
    go_on, done = os.pipe()
    child = os.fork()
    if child == 0:
        seat.after_fork()
        os.close(done)
        os.read(go_on, 1)
        os._exit(0)
    number = seat._number
    deadline = time.monotonic() + 10
    seat.close()
    taken = bell.seat()
    while taken._number != number and time.monotonic() < deadline:
        taken.close()
        taken = bell.seat()
    os.close(done)
    os.waitpid(child, 0)

    assert taken._number == number


def test_files_are_private(bell):
    """Folder, marks, locks and FIFOs are the user's own."""
    bell.seat()

    assert stat.S_IMODE(bell._folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in bell._folder.iterdir()} == {0o600}


def test_ring_survives_removed_folder(bell):
    """``ring`` comes after a commit, so it never raises: not when files are gone, not when closed."""
    seat = bell.seat()
    seat.mark()
    for path in list(bell._folder.iterdir()):
        path.unlink()

    bell.ring()
    bell.close()
    bell.ring()


def test_closed_bell_has_no_seats(tmp_path):
    """A seat of a bell that isn't open is refused."""
    with pytest.raises(OSError, match="not open"):
        Bell(Path(tmp_path)).seat()
