"""The folder outside every repository where installed servers lie, shared by all checkouts of a user."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home() -> Path:
    """Return the folder: ``BOOST_SERVERS_HOME``, else a cache folder of the user."""
    return Path(os.environ.get("BOOST_SERVERS_HOME") or Path.home() / ".cache" / "boost" / "servers").absolute()


@contextmanager
def locked(what: str) -> Iterator[None]:
    """Let one process at a time do ``what``; what it made is there when the next one looks."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / f"{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` when the block succeeds: half an installation is never seen."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        yield made
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
