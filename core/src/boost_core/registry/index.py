"""One scan of the installed distributions' entry points a process; nothing is imported by it."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import importlib_metadata

from boost_core.errors import Provider

log = logging.getLogger(__name__)

KINDS: Final = ("broker", "pool", "codec", "store", "control")
PLUGINS_GROUP: Final = "boost.plugins"
_GROUPS: Final[Mapping[str, str]] = {f"boost.{kind}s": kind for kind in KINDS} | {PLUGINS_GROUP: "plugin"}


@attrs.frozen(kw_only=True)
class Entry:
    """One entry point: what is provided under which name, by which module of which distribution."""

    kind: str
    name: str
    module: str
    distribution: str
    version: str
    location: str
    requires: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def provider(self) -> Provider:
        """Where it comes from."""
        return Provider(self.distribution, self.version, self.location)


def scan(path: Sequence[str] | None = None) -> tuple[Entry, ...]:
    """Return all entries of boost's groups on ``path`` (else ``sys.path``), in the order found.

    A distribution that is found twice (an editable install beside its metadata) counts once: the first one. What
    an interrupted install left behind is no distribution, and harms nobody.
    """
    context = {} if path is None else {"path": list(path)}
    seen: set[str] = set()
    entries: list[Entry] = []
    for distribution in importlib_metadata.distributions(**context):
        metadata = _metadata(distribution)
        name = metadata.get("Name")
        if name is None or normal(name) in seen:
            continue
        seen.add(normal(name))
        entries += _entries(distribution, name, metadata.get("Version") or "unknown")
    return tuple(entries)


def normal(name: str) -> str:
    """Return a distribution's name as it compares: ``Acme_Boost.Kafka`` is ``acme-boost-kafka``."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def installed() -> tuple[Entry, ...]:
    """Return what is installed; scanned once a process."""
    return scan()


def _metadata(distribution: Any) -> Any:
    try:
        return distribution.metadata or {}
    except Exception:  # a folder without its file
        return {}


def _entries(distribution: Any, name: str, version: str) -> list[Entry]:
    try:
        found = [point for point in distribution.entry_points if point.group in _GROUPS]
    except Exception as error:
        log.warning("%s %s is passed over: its entry points can't be read: %s", name, version, error)
        return []
    return [
        Entry(
            kind=_GROUPS[point.group],
            name=point.name,
            module=point.value.partition(":")[0].strip(),
            distribution=name,
            version=version,
            location=_location(distribution, point.value),
            requires=tuple(distribution.requires or ()),
        )
        for point in found
    ]


def _location(distribution: Any, value: str) -> str:
    """Return the folder of the entry's package: beside the metadata, or where an editable install points."""
    package = value.partition(":")[0].partition(".")[0].strip()
    beside = Path(str(distribution.locate_file(package)))
    if package and not beside.exists():
        file = beside.with_suffix(".py")
        found = None if file.exists() else importlib.util.find_spec(package)
        folders = list(found.submodule_search_locations or ()) if found else []
        return str(file) if file.exists() else folders[0] if folders else str(beside)
    return str(beside)
