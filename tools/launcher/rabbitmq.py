"""RabbitMQ from Debian's packages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import quote

from launcher.connection import ask
from launcher.debian import install_packages
from launcher.ports import HOST
from launcher.program import run
from launcher.server import Server

# Not those in /usr/sbin, which change to a system user.
_PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")
_EVERYTHING: Final = {"configure": ".*", "write": ".*", "read": ".*"}
_NOTHING: Final = {"configure": "^$", "write": "^$", "read": "^$"}
_ALARMS: Final = {
    "memory": (
        ["set_vm_memory_high_watermark", "absolute", "1MB"],
        ["set_vm_memory_high_watermark", "absolute", "1GB"],
    ),
    "disk": (["set_disk_free_limit", "1000000GB"], ["set_disk_free_limit", "50MB"]),
}


@dataclass(eq=False, kw_only=True)
class RabbitMQ(Server):
    """A RabbitMQ node of its own, with its own port mapper; user and password are ``guest`` unless ``users`` are given.

    ``settings`` are lines of rabbitmq.conf. ``consumer_timeout`` is in seconds. ``policies`` stand as in exported
    definitions, without their vhost. ``management`` adds the HTTP interface, at the cost of a slower start.
    ``joins`` is a node that runs already, whose cluster this one belongs to: it has the port mapper of them all, so it
    must outlive this one.
    """

    vhost: str = "/"
    consumer_timeout: float | None = None
    policies: Sequence[Mapping[str, Any]] = ()
    management: bool = False
    joins: RabbitMQ | None = None
    users: Mapping[str, str] = field(default_factory=lambda: {"guest": "guest"})

    NAME: ClassVar[str] = "rabbitmq"
    SCHEMES: ClassVar[tuple[str, str]] = ("amqp", "amqps")
    PORTS: ClassVar[tuple[str, ...]] = ("client", "distribution", "mapper", "management")

    @classmethod
    def missing(cls) -> str | None:
        if (_PROGRAMS / "rabbitmq-server").exists():
            return None
        return f"no rabbitmq-server here; tools/servers install {cls.NAME}"

    @classmethod
    def install(cls) -> None:
        install_packages("rabbitmq-server", services=["rabbitmq-server"])

    @property
    def management_url(self) -> str:
        """Where the HTTP interface is, if there is one."""
        return f"http://{HOST}:{self.ports['management']}"

    @property
    def node(self) -> str:
        """What it is called in its cluster."""
        return f"node{self.port}@localhost"

    def start(self, *, lasting: bool = False) -> Self:
        """Return once it answers, and has joined its cluster."""
        is_new = not self.ports
        super().start(lasting=lasting)
        if self.joins is not None and is_new:
            for words in (["stop_app"], ["join_cluster", self.joins.node], ["start_app"]):
                self.control(*words)
        return self

    def control(self, *arguments: str) -> str:
        """Return what ``rabbitmqctl`` says to these arguments."""
        environ = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", **self._environment()}
        return run(str(_PROGRAMS / "rabbitmqctl"), "--quiet", *arguments, environ=environ, seconds=60)

    def alarm(self, kind: Literal["memory", "disk"], *, on: bool = True) -> None:
        """Raise or clear an alarm, which keeps publishers from publishing."""
        raising, clearing = _ALARMS[kind]
        self.control(*(raising if on else clearing))

    def flush(self) -> None:
        """Put on disk which queues there are.

        The server confirms messages only when they are safe, but declarations before that: about one in seven queues
        that were made right before a kill was gone afterwards, with its messages.
        """
        self.control("eval", "mnesia:sync_log().")

    def _path(self) -> str:
        return f"/{quote(self.vhost, safe='')}"

    def _prepare(self) -> list[str]:
        cookie = self.folder / ".erlang.cookie"
        if self.joins is not None and not cookie.exists():
            shutil.copy(self.joins.folder / cookie.name, cookie)  # nodes of a cluster share it, and its mode
        self._write("enabled_plugins", f"[{'rabbitmq_management' if self.management else ''}].\n")
        self._write("definitions.json", json.dumps(self._definitions(), indent=1))
        self._write("rabbitmq.conf", "".join(f"{name} = {value}\n" for name, value in self._settings().items()))
        self._write("advanced.config", f"[{{rabbit, [{self._advanced()}]}}].\n")
        return [str(_PROGRAMS / "rabbitmq-server")]

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "listeners.tcp": "none",
            "load_definitions": self.folder / "definitions.json",
            "disk_free_limit.absolute": "50MB",
            "vm_memory_high_watermark.absolute": "1GiB",
            "log.console.level": "warning",
        }
        if self.tls:
            files = self._certificates
            settings |= {"listeners.ssl.default": f"{HOST}:{self.port}", "ssl_options.verify": "verify_none"}
            settings |= {"ssl_options.certfile": files.certificate, "ssl_options.keyfile": files.key}
        else:
            del settings["listeners.tcp"]
            settings |= {"listeners.tcp.default": f"{HOST}:{self.port}"}
        if self.management:
            settings |= {"management.tcp.ip": HOST, "management.tcp.port": self.ports["management"]}
        return {**settings, **self.settings}

    def _advanced(self) -> str:
        if self.consumer_timeout is None:
            return ""
        # Channels look at their time-outs once a tick, usually each minute.
        return f"{{consumer_timeout, {self.consumer_timeout * 1000:.0f}}}, {{channel_tick_interval, 500}}"

    def _definitions(self) -> dict[str, Any]:
        rights = [(name, _EVERYTHING) for name in self.users] + [(name, _NOTHING) for name in self.strangers]
        return {
            "vhosts": [{"name": self.vhost}],
            "users": [
                *(_user(name, password, "administrator") for name, password in self.users.items()),
                *(_user(name, password) for name, password in self.strangers.items()),
            ],
            "permissions": [{"user": name, "vhost": self.vhost, **right} for name, right in rights],
            "policies": [
                {"apply-to": "queues", "priority": 0, **policy, "vhost": self.vhost} for policy in self.policies
            ],
        }

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "HOME": str(folder),  # for the cookie
            "RUNNING_UNDER_SYSTEMD": "true",  # no shell between us and the server
            "ERL_EPMD_PORT": str((self.joins or self).ports["mapper"]),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
        }

    def _answers(self) -> bool:
        return ask(self.port, b"AMQP\x00\x00\x09\x01", self.ca).startswith(b"\x01\x00\x00")


def _user(name: str, password: str, *tags: str) -> dict[str, Any]:
    salt = os.urandom(4)
    digest = b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    algorithm = "rabbit_password_hashing_sha256"
    return {"name": name, "password_hash": digest, "hashing_algorithm": algorithm, "tags": ",".join(tags)}
