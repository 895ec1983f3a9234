"""What core reads of this package without loading a client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
from boost_core.plugin import BrokerSpec, Capability, Check, Guarantee, Limits, Secret, duration, hookimpl, option

MIB = 1024 * 1024
MOST_LEVELS = 255
PORTS: Final = {"amqp": 5672, "amqps": 5671}
LAST_PORT: Final = 65535
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(\d{1,5}))?")


@attrs.frozen
class Parts:
    """What a URL is made of: who logs in (user:password), and each host with its port, as they stand there."""

    scheme: str
    login: str
    hosts: tuple[tuple[str, int], ...]
    vhost: str

    @classmethod
    def of(cls, url: str) -> Parts:
        """Take a URL apart. Raises ``ValueError``, which quotes nothing: any piece may be one of a password."""
        scheme, mark, rest = url.partition("://")
        if not mark or scheme.lower() not in PORTS:
            raise ValueError("it must start with amqp:// or amqps://")
        place, _, vhost = rest.partition("/")
        if {"?", "#"} & set(rest) or "@" in vhost:
            problem = (
                "options stand beside the URL, not in it; write / ? # in a password as %2F %3F %23, @ in a vhost as %40"
            )
            raise ValueError(problem)
        login, _, hosts = place.rpartition("@")
        usual = PORTS[scheme.lower()]
        return cls(scheme.lower(), login, tuple(_host(text.strip(), usual) for text in hosts.split(",")), vhost)


def _host(text: str, usual_port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[2] or usual_port) if found else 0
    if found is None or not 1 <= port <= LAST_PORT:
        raise ValueError(f"write amqp://user:password@host:port/vhost, with a port of 1 to {LAST_PORT}")
    return found[1].strip("[]") or "127.0.0.1", port


def _reachable(url: Secret | None) -> str | None:
    try:
        Parts.of(url.reveal() if url else "amqp://")
    except ValueError as error:
        return str(error)
    return None


def _queue_type(value: str) -> str | None:
    return None if value in ("quorum", "classic") else "it is 'quorum' or 'classic'"


def _levels(value: int) -> str | None:
    return None if 1 <= value <= MOST_LEVELS else f"it is 1 to {MOST_LEVELS}"


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0"


def _heartbeat(value: float) -> str | None:
    return None if value >= 1 and value == int(value) else "it is whole seconds, 1 or more"


@attrs.frozen(kw_only=True)
class RabbitOptions:
    """The options of broker ``rabbitmq``."""

    url: Secret | None = option(
        None,
        check=_reachable,
        help="amqp://user:password@host:port/vhost, amqps:// for TLS, hosts of a cluster with commas; by default"
        " amqp://guest:guest@127.0.0.1:5672/.",
    )
    queue_type: str = option(
        "quorum", check=_queue_type, help="'quorum' (replicated, counts lost workers) or 'classic' (has priorities)."
    )
    priorities: int = option(
        10, check=_levels, help="Levels of priority of classic queues; 1 declares them without x-max-priority."
    )
    max_body: int = option(
        16 * MIB, check=_positive, help="Largest body in bytes; servers take 128 MiB unless set up, from 4.0 on 16 MiB."
    )
    heartbeat: float = option(
        10.0, convert=duration, check=_heartbeat, help="Seconds; a silent connection is given up after two of them."
    )
    consumer_timeout: float = option(
        1800.0,
        convert=duration,
        check=_positive,
        help="The server's consumer_timeout in seconds: what servers before 3.12 allow a job, to warn in time.",
    )
    tls_ca: str | None = option(None, help="File with the authority to trust; by default the system's.")
    tls_cert: str | None = option(None, help="File with the client's certificate, where the server wants one.")
    tls_key: str | None = option(None, help="File with the key of the client's certificate.")
    timeout: float = option(
        10.0, convert=duration, check=_positive, help="Longest wait for the server in seconds, where no other is given."
    )

    def effective(self, spec: BrokerSpec) -> tuple[frozenset[Capability], Limits]:
        """Return what these options make of the spec: classic queues have priorities, bodies are bounded as said."""
        capabilities = spec.capabilities
        limits = attrs.evolve(spec.limits, max_body=self.max_body)
        if self.queue_type == "classic" and self.priorities > 1:
            capabilities |= {Capability.PRIORITY}
            limits = attrs.evolve(limits, priorities=self.priorities)
        return capabilities, limits


SPEC = BrokerSpec(
    name="rabbitmq",
    factory="boost_broker_rabbitmq.broker:RabbitBroker",
    options=RabbitOptions,
    schemes=("amqp", "amqps"),
    capabilities=frozenset(
        {
            Capability.ACK,
            Capability.PERSISTENT,
            Capability.DELAY,
            Capability.ORDERED,
            Capability.BATCH_PUBLISH,
            Capability.BATCH_FETCH,
            Capability.BATCH_ACK,
            Capability.DEPTH,
            Capability.PURGE,
            Capability.TTL,
        }
    ),
    limits=Limits(max_body=16 * MIB, delay_resolution=0.01, takeover=1.0, ack_lag=64),
    guarantees=(
        Guarantee(
            when='`queue_type="quorum"` (default)',
            worker_killed="nothing lost, taken over within 1 s",
            all_killed="nothing lost",
            power_cut="nothing lost",
        ),
        Guarantee(
            when='`queue_type="classic"`',
            worker_killed="nothing lost, taken over within 1 s",
            all_killed="nothing lost",
            power_cut="the last pushes may be lost",
        ),
    ),
    summary="RabbitMQ 3.10 and later: queues of a server or cluster, each message owned by a connection.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the broker ``rabbitmq``."""
    return [SPEC]


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at."""
    return [Check(name="rabbitmq", run="boost_broker_rabbitmq.checks:check", broker="rabbitmq")]
