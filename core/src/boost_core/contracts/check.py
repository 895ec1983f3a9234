"""The contract of checks: what ``boost doctor`` asks of plugins."""

from __future__ import annotations

import enum
from typing import Any

import attrs


class Level(enum.Enum):
    """How bad a finding is; ``DANGER`` means that messages can be lost or workers can't work."""

    OK = "ok"
    WARNING = "warning"
    DANGER = "danger"


@attrs.frozen
class Finding:
    """One answer of a check: what was found, and the remedy where something is to be done."""

    level: Level
    text: str
    remedy: str | None = None


@attrs.frozen(kw_only=True)
class Examined:
    """What a check looks at: the opened broker of its plugin, or the whole app where the check is of no broker.

    ``plans`` are the resolved tasks on it: their time-outs, concurrency and options.
    """

    broker: Any = None
    app: Any = None
    plans: tuple[Any, ...] = ()


@attrs.frozen(kw_only=True)
class Check:
    """One thing that ``boost doctor`` looks at.

    ``run`` is ``"package.module:function"``, imported when it is run: it takes an ``Examined`` and returns findings; a
    coroutine function for a broker written in coroutines. With ``broker`` it runs once for each broker of that name
    that the tasks use, else once.
    """

    name: str
    run: str
    broker: str | None = None
