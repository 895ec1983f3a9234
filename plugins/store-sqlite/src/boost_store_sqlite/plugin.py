"""What core reads of this package without loading SQLite."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from boost_core.plugin import StoreSpec, duration, hookimpl, option


def _durability(value: str) -> str | None:
    return None if value in ("process", "power") else "it is 'process' or 'power'"


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


@attrs.frozen(kw_only=True)
class SqliteStoreOptions:
    """The options of store ``sqlite``."""

    path: str | None = option(None, help="The file; by default one a project, in the user's data folder.")
    durability: str = option(
        "process", check=_durability, help="'process' survives kill -9 of anything, 'power' a power cut as well."
    )
    timeout: float = option(
        10.0, convert=duration, check=_positive, help="Longest wait for the file's lock, in seconds."
    )


SPEC = StoreSpec(
    name="sqlite",
    factory="boost_store_sqlite.store:SqliteStore",
    options=SqliteStoreOptions,
    summary="Results in one SQLite file: many processes of one machine, no server.",
)


@hookimpl
def boost_stores() -> Sequence[StoreSpec]:
    """Return the store ``sqlite``."""
    return [SPEC]
