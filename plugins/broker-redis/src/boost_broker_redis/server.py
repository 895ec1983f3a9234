"""What is asked of the server: new enough, writable, and that it keeps what it has confirmed."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import Finding, Level
from redis import exceptions

from boost_broker_redis.troubles import Unfit

OLDEST: Final = {"redis": (6, 2), "redis-stream": (7, 0)}
"""What each broker needs: since 6.2 sorted sets tell many scores at once, since 7.0 streams forget what is deleted."""

PROBE: Final = (
    ("TIME",),
    ("INFO",),
    ("CONFIG", "GET", "appendfsync"),
    ("PUBLISH", "boost:wake:nobody", ""),
)
"""Commands whose answers ``Server.of`` reads."""

MOST_SKEW: Final = 1.0

_LOG: Final = "aof_last_write_status"
_WRITES: Final = {
    _LOG: "write its log",
    "aof_last_bgrewrite_status": "rewrite its log, which grows on",
    "rdb_last_bgsave_status": "write its last snapshot",
}
"""What a server says of its last writes, and what each of them was to do."""


@attrs.frozen(kw_only=True)
class Server:
    """What a server says of itself. None is what it doesn't say: ``INFO`` and ``CONFIG`` may be forbidden to a user."""

    software: str
    version: tuple[int, ...] | None
    role: str | None
    clustered: bool
    appendonly: bool | None
    appendfsync: str | None
    policy: str | None
    unwritten: tuple[str, ...]
    snapshot: str | None
    ahead: float
    wakes: bool
    forbidden: tuple[str, ...]

    @classmethod
    def of(cls, replies: Sequence[Any]) -> Server:
        """Return what the answers to ``PROBE`` say. Raises the client's errors where they are no answers to it."""
        clock, info, config, heard = replies
        if isinstance(clock, Exception):
            raise clock
        if not isinstance(clock, list):
            raise exceptions.InvalidResponse(clock)
        facts = _facts(info)
        software = "valkey" if "valkey_version" in facts else "redis"
        setting = dict(zip(config[::2], config[1::2], strict=True)) if isinstance(config, list) else {}
        return cls(
            software=software.capitalize(),
            version=_version(facts.get("redis_version")),
            role=facts.get("role"),
            clustered=facts.get("cluster_enabled") == "1",
            appendonly=None if "aof_enabled" not in facts else facts["aof_enabled"] == "1",
            appendfsync=setting.get(b"appendfsync", b"").decode() or None,
            policy=facts.get("maxmemory_policy"),
            unwritten=tuple(name for name in _WRITES if facts.get(name) == "err"),
            snapshot=_snapshot(facts, int(clock[0])),
            ahead=int(clock[0]) + int(clock[1]) / 1e6 - time.time(),
            wakes=not isinstance(heard, exceptions.NoPermissionError),
            forbidden=tuple(
                name for name, reply in (("INFO", info), ("CONFIG", config)) if isinstance(reply, Exception)
            ),
        )

    def insist(self, broker: str, durability: str) -> None:
        """Raise ``Unfit`` where the broker can't work on it, or where it may lose messages and that isn't accepted."""
        for finding in self.unusable(broker):
            raise Unfit(finding)
        if durability != "none":
            for finding in self.forgetful():
                raise Unfit(finding)

    def unusable(self, broker: str) -> Iterator[Finding]:
        """Yield why the broker can't work on it, whatever may be lost."""
        oldest = OLDEST[broker]
        if self.version is not None and self.version < oldest:
            needed = f"Redis {'.'.join(map(str, oldest))} or newer, or Valkey"
            yield _danger(f"is Redis {_dotted(self.version)}; {needed}, is needed", "Upgrade the server.")
        if self.role == "slave":
            yield _danger("is a replica, which can't be written", "Mend url=: it must name the primary.")
        if self.clustered:
            fix = "Use a server without cluster mode."
            yield _danger("is a node of a cluster, which this broker can't use", fix)
        if not self.wakes:
            yield _danger("doesn't let this user wake workers", 'Allow the channels: ACL SETUSER <user> "&boost:*"')

    def forgetful(self) -> Iterator[Finding]:
        """Yield how it may lose what it has confirmed."""
        accept = 'or accept the loss: durability="none"'
        if self.appendonly is False:
            fix = f"Set appendonly yes in its configuration, {accept}."
            yield _danger("keeps messages in memory only (appendonly no): a crash loses them", fix)
        if self.policy not in (None, "noeviction"):
            fix = f"Set maxmemory-policy noeviction, {accept}."
            yield _danger(f"drops messages when its memory is full (maxmemory-policy {self.policy})", fix)
        if _LOG in self.unwritten:
            text = f"couldn't {_WRITES[_LOG]} ({_LOG} err): a crash loses what isn't on its disk"
            yield _danger(text, f"Make room on its disk, and see its log; {accept}.")

    def doubtful(self) -> Iterator[Finding]:
        """Yield what is worth a warning."""
        if self.forbidden:
            unknown = "version, appendonly and maxmemory-policy" if "INFO" in self.forbidden else "appendfsync"
            yield Finding(
                Level.WARNING,
                f"doesn't say its {unknown}: {' and '.join(self.forbidden)} may not be used by this user",
                "Allow it (ACL SETUSER <user> +info +config|get), or see to it yourself.",
            )
        if self.appendonly and self.appendfsync == "no":
            yield Finding(
                Level.WARNING,
                "leaves it to the system when its log reaches the disk (appendfsync no)",
                "Set appendfsync everysec: then a power cut loses a second, not half a minute.",
            )
        for name in self.unwritten:
            if name != _LOG:
                text = f"couldn't {_WRITES[name]} ({name} err)"
                yield Finding(Level.WARNING, text, "Make room on its disk and in its memory, and see its log.")


def _facts(info: Any) -> Mapping[str, str]:
    if not isinstance(info, bytes):
        return {}
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _snapshot(facts: Mapping[str, str], now: int) -> str | None:
    """Return how old the last snapshot is; of one that made none since its start, the server says when it started."""
    saved, changes = facts.get("rdb_last_save_time", ""), facts.get("rdb_changes_since_last_save", "")
    if not (saved.isdecimal() and changes.isdecimal()):
        return None
    age = datetime.timedelta(seconds=max(0, now - int(saved)))
    return f"{int(changes):,} changes since its last snapshot or start {age} ago"


def _version(text: str | None) -> tuple[int, ...] | None:
    parts = (text or "").split(".")
    return tuple(int(part) for part in parts if part.isdecimal()) or None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _danger(text: str, remedy: str) -> Finding:
    return Finding(Level.DANGER, text, remedy)
