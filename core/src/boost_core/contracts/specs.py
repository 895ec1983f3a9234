"""What plugins hand over: frozen descriptions that can be read without loading any client."""

from __future__ import annotations

import enum
import re
from typing import Any, Final

import attrs

from boost_core.contracts.capability import Capability

API: Final = 1
"""The plugin API that this core speaks."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")


def _plugin_name(_spec: object, _field: object, value: str) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        message = f"a plugin's name must match {_NAME.pattern}, not {value!r}"
        raise ValueError(message)


class Flavour(enum.Enum):
    """The colour a broker is written in."""

    SYNC = "sync"
    ASYNC = "async"


class World(enum.Enum):
    """Where a pool runs calls; it decides how a task's runner is compiled."""

    THREADED = "threaded"
    GREEN = "green"
    LOOP = "loop"
    INLINE = "inline"


class WrapStage(enum.IntEnum):
    """Layers around the call, outermost first."""

    TRACE = 1
    TIMEOUT = 2
    CONTEXT = 3
    USER = 4


class GateStage(enum.IntEnum):
    """Admission before the pool, first to last."""

    EXPIRE = 1
    PAUSE = 2
    WINDOW = 3
    CANCEL = 4
    CIRCUIT = 5
    DEDUP = 6
    KEY_LIMIT = 7
    RATE = 8


class PolicyStage(enum.IntEnum):
    """What an outcome leads to, first to last; METRICS and LOG come after the ack."""

    RETRY = 1
    CIRCUIT = 2
    RESULT = 3
    METRICS = 4
    LOG = 5


@attrs.frozen(kw_only=True)
class Limits:
    """What a broker bears: bytes, messages, seconds. None means no bound of its own.

    ``lease`` is the default time a delivery is ours without an extension, ``takeover`` the
    published bound until another worker has a killed one's messages, ``ack_lag`` how many acks
    may still be unwritten.
    """

    max_body: int = 1024 * 1024
    max_batch: int = 1000
    max_delay: float | None = None
    delay_resolution: float = 0.001
    priorities: int = 1
    lease: float | None = None
    takeover: float | None = None
    ack_lag: int = 0


@attrs.frozen(kw_only=True)
class Guarantee:
    """What becomes of stored messages when plugs are pulled, in words for readers: a row of the guarantee table.

    ``when`` is the condition (an option, how the server is set up), empty where there is only one row.
    ``worker_killed``, ``all_killed`` (the server too) and ``power_cut`` say what is lost, or that nothing is.
    """

    when: str = ""
    worker_killed: str
    all_killed: str
    power_cut: str


@attrs.frozen(kw_only=True)
class NoOptions:
    """The options of a plugin that has none."""


@attrs.frozen(kw_only=True)
class Spec:
    """Common part of all specs: ``factory`` is ``"package.module:attribute"``, imported on first use."""

    name: str = attrs.field(validator=_plugin_name)
    factory: str
    options: type = NoOptions
    summary: str = ""
    api: int = API


@attrs.frozen(kw_only=True)
class BrokerSpec(Spec):
    """A broker. ``schemes`` are URL schemes beside the name; ``store`` is where results go by default.

    ``guarantees`` are what its documentation promises, a row a condition.
    """

    kind: Any = attrs.field(default="broker", init=False)
    flavour: Flavour = Flavour.SYNC
    schemes: tuple[str, ...] = ()
    capabilities: frozenset[Capability] = frozenset()
    limits: Limits = Limits()
    guarantees: tuple[Guarantee, ...] = ()
    store: str = "sqlite"


@attrs.frozen(kw_only=True)
class PoolSpec(Spec):
    """A concurrency mode. ``concurrency`` is what a task gets that doesn't say; None in ``maximum`` is no bound."""

    kind: Any = attrs.field(default="pool", init=False)
    world: World = World.THREADED
    concurrency: int = 1
    maximum: int | None = None


@attrs.frozen(kw_only=True)
class CodecSpec(Spec):
    """A codec; its name is the tag that each body starts with."""

    kind: Any = attrs.field(default="codec", init=False)


@attrs.frozen(kw_only=True)
class StoreSpec(Spec):
    """A store of keyed state with time to live. ``shared`` ones are seen by other processes."""

    kind: Any = attrs.field(default="store", init=False)
    schemes: tuple[str, ...] = ()
    shared: bool = True


@attrs.frozen(kw_only=True)
class ControlSpec(Spec):
    """A feature. Its ``options`` class declares the task options it owns, by ``boost_core.plugin.option``.

    ``wrap``, ``gate`` and ``policy`` name the stages it takes part in; ``before`` and ``after`` name
    controls of the same stage.
    """

    kind: Any = attrs.field(default="control", init=False)
    wrap: WrapStage | None = None
    gate: GateStage | None = None
    policy: PolicyStage | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
