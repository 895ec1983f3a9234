"""Where a project's SQLite files live, and on what kind of file system."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger("boost")

NETWORK_FILESYSTEMS: Final = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.smbnetfs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
    ]
)
"""File systems, by the kernel's name, whose locks or shared mappings don't reach other hosts reliably."""

_MARKS_OF_A_PROJECT: Final = ("pyproject.toml", ".git")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_named: Final[list[Path]] = []


def project_file(name: str, *, tag: str = "", environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the file ``name`` of the current project lives: one file a project, in the user's data folder.

    ``BOOST_SQLITE_PATH`` wins; ``tag`` goes before its suffix, so that several files can hang on one
    setting. Else the project is the nearest folder from the working folder upwards with a ``pyproject.toml`` or
    ``.git``, and if there is none, the working folder. Nothing is created.
    """
    chosen = environ.get("BOOST_SQLITE_PATH")
    if chosen:
        path = Path(chosen).expanduser().absolute()
        return path.with_name(f"{path.stem}{tag}{path.suffix}")
    project = _project_of(Path.cwd()) or Path.cwd()
    _tell_strangers(project)
    digest = hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
    return _data_folder(environ) / "boost" / f"{project.name or 'root'}-{digest}" / name


def name_file(path: Path) -> None:
    """Take note of a file that the command line names: who wrote it may expect the queue of that file's project."""
    _named.append(path)


def _tell_strangers(project: Path) -> None:
    """Say once which of the named files are of another project."""
    while _named:
        file = _named.pop(0)
        its = _project_of(file.parent)
        if its is not None and its != project:
            text = (
                "%s belongs to the project %s, but the queue of %s is used: start boost there, or set BOOST_SQLITE_PATH"
            )
            log.warning(text, file, its, project)


def _project_of(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in _MARKS_OF_A_PROJECT):
            return folder
    return None


def _data_folder(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_DATA_HOME"):
        return Path(environ["XDG_DATA_HOME"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path.home() / ".local" / "share"


def filesystem_of(folder: Path) -> str | None:
    """Return the kernel's name of the file system that ``folder`` is on; None where it can't be told."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    kinds = dict(_mount(line) for line in mounts)  # a later mount on the same point hides an earlier one
    resolved = folder.resolve()
    for point in (resolved, *resolved.parents):
        if str(point) in kinds:
            return kinds[str(point)]
    return None


def _mount(line: str) -> tuple[str, str]:
    """Return mount point and file system of a line of mountinfo (proc(5))."""
    fields, _, rest = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split(" ")[4])
    return point, rest.split(" ")[0]


def identity_of(path: Path) -> tuple[int, int]:
    """Return device and number of the file that has this path; zeros where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - on the way of every push, and Path takes twice as long
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def is_writable(path: Path) -> bool:
    """Return whether a file or folder may be written, by its mode too: who took the write bits away meant root."""
    return bool(path.stat().st_mode & 0o222) and os.access(path, os.W_OK)
