"""One scan of the installed distributions' entry points a process; nothing is imported by it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import importlib_metadata

from boost_core.errors import Provider

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

    A distribution that is found twice (an editable install beside its metadata) counts once: the first one.
    """
    context = {} if path is None else {"path": list(path)}
    seen: set[str] = set()
    entries: list[Entry] = []
    for distribution in importlib_metadata.distributions(**context):
        name = distribution.metadata["Name"]
        if name is None or name.lower() in seen:
            continue
        seen.add(name.lower())
        entries += _entries(distribution, name)
    return tuple(entries)


@functools.cache
def installed() -> tuple[Entry, ...]:
    """Return what is installed; scanned once a process."""
    return scan()


def _entries(distribution: Any, name: str) -> list[Entry]:
    found = [point for point in distribution.entry_points if point.group in _GROUPS]
    if not found:
        return []
    return [
        Entry(
            kind=_GROUPS[point.group],
            name=point.name,
            module=point.value.partition(":")[0].strip(),
            distribution=name,
            version=distribution.version,
            location=_location(distribution, point.value),
            requires=tuple(distribution.requires or ()),
        )
        for point in found
    ]


def _location(distribution: Any, value: str) -> str:
    """Return the folder of the entry's package: beside the metadata, or where an editable install points."""
    package = value.partition(":")[0].partition(".")[0].strip()
    return str(Path(str(distribution.locate_file(package))))
