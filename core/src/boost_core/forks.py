"""What has to be let go of around a fork: one registration with the interpreter, for all objects that ask."""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

_OWNERS: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_registered = False


def on_fork(owner: Any) -> None:
    """Have ``owner.after_fork()`` called in each forked child, for as long as ``owner`` lives.

    One that has ``before_fork()`` and ``after_fork_in_parent()`` has these called around the fork as well.
    """
    global _registered  # noqa: PLW0603 - a process has one at-fork registration, and it can't be taken back
    _OWNERS.add(owner)
    if not _registered:
        _registered = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    for owner in list(_OWNERS):
        if hasattr(owner, "before_fork"):
            owner.before_fork()


def _in_parent() -> None:
    for owner in list(_OWNERS):
        if hasattr(owner, "after_fork_in_parent"):
            owner.after_fork_in_parent()


def _in_child() -> None:
    for owner in list(_OWNERS):
        owner.after_fork()
