"""Apache Kafka in KRaft mode: one node that is broker and controller, its jars from Maven."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

from launcher.connection import ask
from launcher.home import fresh, home
from launcher.maven import fetch_jars, need_java
from launcher.ports import HOST
from launcher.program import run
from launcher.server import Server

_VERSION: Final = "4.4.0"
_JARS: Final = (f"org.apache.kafka:kafka_2.13:{_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_JVM: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOG: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_CLUSTER: Final = "MkU3OEVBNTcwNTJENDM2Qk"  # any 22 characters of base64
_PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_FORMAT: Final = f"""\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{HOST}:1
listeners=CONTROLLER://{HOST}:1,PLAINTEXT://{HOST}:2
log.dirs="""


@dataclass(eq=False, kw_only=True)
class Kafka(Server):
    """One Kafka node. ``users`` log in by SASL PLAIN; ``strangers`` may do nothing with any topic or group.

    Clients are sent to the port ``advertised``, such as a proxy's, instead of the server's own. ``settings`` are lines
    of server.properties, such as ``{"num.partitions": 3}``; topics aren't made by being used, unless they say so.
    """

    advertised: int | None = None

    NAME: ClassVar[str] = "kafka"
    SCHEMES: ClassVar[tuple[str, str]] = ("kafka", "kafka")
    PORTS: ClassVar[tuple[str, ...]] = ("client", "internal", "controller")

    @classmethod
    def missing(cls) -> str | None:
        if not _home().exists():
            return f"Kafka {_VERSION} isn't here; tools/servers install {cls.NAME}"
        return None if shutil.which("java") else "no java here; apt-get install default-jre-headless"

    @classmethod
    def install(cls) -> None:
        need_java()
        with fresh(_home()) as folder:
            fetch_jars(folder, _JARS)
            _format(folder)
        # Once in vain: when it ends, Java keeps what it made of the classes, and starts twice as fast from then on.
        with TemporaryDirectory() as place, cls(folder=Path(place)) as server:
            server.start()
            server.stop(60)

    def _prepare(self) -> list[str]:
        data = self.folder / "data"
        if not data.exists():
            shutil.copytree(_home() / "formatted", data)
        properties = self.folder / "server.properties"
        properties.write_text(
            "".join(f"{name}={value}\n" for name, value in self._settings().items()), encoding="utf-8"
        )
        return ["java", "-Xms64m", "-Xmx256m", *_JVM, _LOG, *_classes(), "kafka.Kafka", str(properties)]

    def _settings(self) -> dict[str, Any]:
        client = f"{'SASL_' if self.users or self.strangers else ''}{'SSL' if self.tls else 'PLAINTEXT'}"
        internal = f"INTERNAL://{HOST}:{self.ports['internal']}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self.ports['controller']}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": f"CLIENT://{HOST}:{self.port},{internal},CONTROLLER://{HOST}:{self.ports['controller']}",
            "advertised.listeners": f"CLIENT://{HOST}:{self.advertised or self.port},{internal}",
            "listener.security.protocol.map": f"CLIENT:{client},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            **_SMALL,
            **_QUICK,
        }
        if self.users or self.strangers:
            settings |= self._logins()
        if self.tls:
            settings |= self._tls()
        return {**settings, **self.settings}

    def _logins(self) -> dict[str, Any]:
        known = {**self.users, **self.strangers}
        entries = " ".join(f'user_{name}="{password}"' for name, password in known.items())
        return {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": f"{_PLAIN} {entries};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # ANONYMOUS is the node itself, on its inner listeners.
            "super.users": ";".join(f"User:{name}" for name in ("ANONYMOUS", *self.users)),
        }

    def _tls(self) -> dict[str, Any]:
        files = self._certificates
        store = self.folder / "tls" / "keystore.pem"
        store.write_text(files.key.read_text() + files.certificate.read_text(), encoding="ascii")
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": store}

    def _answers(self) -> bool:
        # Metadata names the brokers that take requests: ours, once it has joined the cluster that it is.
        return ask(self.ports["internal"], _METADATA).find(b"\x00\x09" + HOST.encode()) > 0


_SMALL: Final = {
    "num.network.threads": 2,
    "num.io.threads": 2,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "log.cleaner.dedupe.buffer.size": 16 * 2**20,
}
_QUICK: Final = {
    # A node that was killed can't join again before the session of its former life has ended: 9 s, usually.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.share.min.record.lock.duration.ms": 1000,
}
# Length, request 3 (metadata) in version 0, correlation 1, no client id, no topics... that is, all.
_METADATA: Final = bytes.fromhex("0000000e 0003 0000 00000001 ffff 00000000")


def _home() -> Path:
    return home() / f"kafka-{_VERSION}"


def _classes() -> list[str]:
    archive = _home() / "classes.jsa"
    option = "SharedArchiveFile" if archive.exists() else "ArchiveClassesAtExit"
    return [f"-XX:{option}={archive}", "-cp", f"{_home()}/*"]


def _format(folder: Path) -> None:
    """Format a data folder once, to be copied for each server: that takes a Java of its own, and a second."""
    properties = folder / "format.properties"
    properties.write_text(f"{_FORMAT}{folder / 'formatted'}\n", encoding="utf-8")
    tool = [*_JVM, _LOG, "-cp", f"{folder}/*", "kafka.tools.StorageTool"]
    run("java", *tool, "format", "-t", _CLUSTER, "-c", str(properties))
