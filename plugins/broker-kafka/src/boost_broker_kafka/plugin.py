"""What core reads of this package without loading the client."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import (
    BadOption,
    BrokerSpec,
    Capability,
    Check,
    Guarantee,
    Limits,
    Secret,
    duration,
    hookimpl,
    option,
)

DEFAULT_SERVERS: Final = "localhost:9092"
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
OURS: Final = frozenset(
    {
        *("acks", "request.required.acks", "enable.idempotence", "transactional.id"),
        *("auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store", "partition.assignment.strategy"),
        *("bootstrap.servers", "metadata.broker.list", "group.id", "group.instance.id", "group.protocol"),
    }
)
"""Settings of librdkafka that the guarantees rest on, or that have an option of their own."""

Settings = tuple[tuple[str, Secret], ...]

REJOIN_SECONDS: Final = 5.0
"""How long after a dead worker's session the others have its partitions, at the latest."""

_SERVERS: Final = re.compile(r"[^\s,/@?#]+(,[^\s,/@?#]+)*")
_WITH_PORT: Final = re.compile(r"([^:]+|.*\]):([^:]*)")
_LAST_PORT: Final = 65535
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_FEWEST_BYTES, _MOST_BYTES = 1024, 500_000_000
_SHORTEST_SESSION, _LONGEST_SESSION = 1.0, 1800.0


@attrs.frozen
class Address:
    """Where the servers are, and what a URL says of how to log in there."""

    servers: str
    username: str | None = None
    password: Secret | None = None
    tls: bool = False


def address(url: str) -> Address:
    """Return what ``kafka://user:password@host:port,host:port`` means. Raises ``ValueError`` with the reason."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("kafka", "kafkas"):
        message = f"its scheme is {parts.scheme!r}; give 'kafka' or, for TLS, 'kafkas'"
        raise ValueError(message)
    login, _, servers = parts.netloc.rpartition("@")
    if not _SERVERS.fullmatch(servers) or parts.path.strip("/") or parts.query or parts.fragment:
        message = "after the login it has host:port, several with commas between, and nothing else"
        raise ValueError(message)
    wrong = _wrong_port(servers)
    if wrong is not None:
        raise ValueError(wrong)
    name, _, password = (urllib.parse.unquote(part) for part in login.partition(":"))
    return Address(servers, name or None, Secret(password) if password else None, parts.scheme == "kafkas")


def _url(value: Secret | None) -> str | None:
    try:
        if value is not None:
            address(value.reveal())
    except ValueError as error:
        return str(error)
    return None


def _servers(value: str | None) -> str | None:
    if value is None:
        return None
    return _wrong_port(value) if _SERVERS.fullmatch(value) else "it is host:port, several with commas between"


def _wrong_port(servers: str) -> str | None:
    """Return what is wrong with a port: librdkafka would take another one. What stands there may be of a password."""
    for server in servers.split(","):
        found = _WITH_PORT.fullmatch(server)
        if found and not _is_port(found[2]):
            return f"the port of {found[1]!r} is none; give 1 to {_LAST_PORT}"
    return None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= _LAST_PORT


def _mechanism(value: str) -> str | None:
    return None if value in MECHANISMS else f"it is one of {', '.join(MECHANISMS)}; others go by the option 'client'"


def _group(value: str) -> str | None:
    return None if _GROUP.fullmatch(value) else "it has 1 to 200 of A-Z a-z 0-9 . _ -"


def _positive(value: float | None) -> str | None:
    return None if value is None or value > 0 else "it must be over 0"


def _session(value: float) -> str | None:
    fits = _SHORTEST_SESSION <= value <= _LONGEST_SESSION
    return None if fits else f"it is {_SHORTEST_SESSION:g} to {_LONGEST_SESSION:g} seconds"


def _handover(value: float) -> str | None:
    return None if value <= _LONGEST_SESSION else f"it is at most {_LONGEST_SESSION:g} seconds"


def _body(value: int) -> str | None:
    return None if _FEWEST_BYTES <= value <= _MOST_BYTES else f"it is {_FEWEST_BYTES:,} to {_MOST_BYTES:,} bytes"


def _settings(value: Any) -> Settings:
    """Return settings given as a mapping or as text ``name=value,name=value``; their values don't show."""
    if isinstance(value, str):
        value = dict(pair.strip().split("=", 1) for pair in value.split(",")) if value else {}
    pairs = value.items() if isinstance(value, Mapping) else value
    return tuple((str(name), item if isinstance(item, Secret) else Secret(str(item))) for name, item in pairs)


def _not_ours(value: Settings) -> str | None:
    taken = sorted(OURS.intersection(name for name, _ in value))
    return f"{taken[0]!r} is not for it to set" if taken else None


@attrs.frozen(kw_only=True)
class KafkaOptions:
    """The options of broker ``kafka``."""

    url: Secret | None = option(
        None,
        check=_url,
        help=f"kafka://user:password@host:port,host:port, kafkas:// for TLS; by default kafka://{DEFAULT_SERVERS}.",
    )
    bootstrap_servers: str | None = option(
        None, check=_servers, help="host:port, several with commas between; instead of a URL."
    )
    username: str | None = option(None, help="Who logs in by SASL; with it there is a password.")
    password: Secret | None = option(None, help="The password of 'username'.")
    mechanism: str = option(
        "PLAIN", check=_mechanism, help="How to log in: 'PLAIN', 'SCRAM-SHA-256' or 'SCRAM-SHA-512'."
    )
    tls: bool = option(False, help="Whether to speak TLS.")
    ca_file: str | None = option(None, help="The certificates to trust (PEM); by default the system's.")
    cert_file: str | None = option(None, help="This client's certificate (PEM), where servers want one.")
    key_file: str | None = option(None, help="The key of 'cert_file' (PEM).")
    group: str = option("boost", check=_group, help="The consumer group of all workers that share the queues.")
    partitions: int = option(
        8, check=_positive, help="Partitions of a topic made here; so many workers can share a queue."
    )
    replication: int | None = option(
        None, check=_positive, help="Copies of a topic made here; by default the servers' own default."
    )
    min_insync: int | None = option(
        None,
        check=_positive,
        help="Copies that must have a message before it counts as stored; by default the servers'.",
    )
    retention: float | None = option(
        None,
        convert=duration,
        check=_positive,
        help="How long a topic made here keeps messages; by default until they are done.",
    )
    trim: bool = option(True, help="Delete messages that are done; off where others read the topics too.")
    session_timeout: float = option(
        10.0, convert=duration, check=_session, help="Seconds until a worker not heard of is taken for dead."
    )
    handover: float = option(
        3.0,
        convert=duration,
        check=_handover,
        help="Seconds that running jobs get to end when their partition goes to another worker.",
    )
    max_body: int = option(1_000_000, check=_body, help="The largest message, in bytes.")
    timeout: float = option(10.0, convert=duration, check=_positive, help="Longest wait for the servers, in seconds.")
    client: Settings = option(
        (), convert=_settings, check=_not_ours, help="More settings of librdkafka, a mapping by its own names."
    )

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be meant together."""
        if self.url is not None and self.bootstrap_servers is not None:
            raise BadOption("broker 'kafka' has both 'url' and 'bootstrap_servers'", "Give one of them.")
        found = self.address
        if (found.username is None) != (found.password is None):
            given, missing = ("username", "password") if found.username else ("password", "username")
            raise BadOption(f"broker 'kafka' has a {given}, but no {missing}", "Give both, or neither.")
        if (self.cert_file is None) != (self.key_file is None):
            raise BadOption("broker 'kafka' has one of 'cert_file' and 'key_file'", "Give both, or neither.")

    @property
    def address(self) -> Address:
        """Where the servers are and how to log in, from the URL and the options beside it."""
        found = Address(self.bootstrap_servers or DEFAULT_SERVERS) if self.url is None else address(self.url.reveal())
        return Address(
            found.servers, self.username or found.username, self.password or found.password, self.tls or found.tls
        )

    def effective(self, spec: BrokerSpec) -> tuple[frozenset[Capability], Limits]:
        """Return what these options make of capabilities and limits: one partition keeps the order of a whole queue."""
        ordered = {Capability.ORDERED} if self.partitions == 1 else set()
        limits = attrs.evolve(spec.limits, max_body=self.max_body, takeover=self.session_timeout + REJOIN_SECONDS)
        return spec.capabilities | ordered, limits


SPEC = BrokerSpec(
    name="kafka",
    factory="boost_broker_kafka.broker:KafkaBroker",
    options=KafkaOptions,
    schemes=("kafkas",),
    capabilities=frozenset(
        {
            Capability.ACK,
            Capability.PERSISTENT,
            Capability.DELAY,
            Capability.KEY_ORDERED,
            Capability.BATCH_PUBLISH,
            Capability.BATCH_FETCH,
            Capability.BATCH_ACK,
            Capability.DEPTH,
            Capability.PURGE,
        }
    ),
    limits=Limits(max_body=1_000_000, takeover=15.0, ack_lag=1000),
    guarantees=(
        Guarantee(
            when="one server, `replication=1`",
            worker_killed="nothing lost, taken over within 15 s",
            all_killed="nothing lost",
            power_cut="the last seconds' pushes may be lost",
        ),
        Guarantee(
            when="three servers, `replication=3, min_insync=2`",
            worker_killed="nothing lost, taken over within 15 s",
            all_killed="nothing lost",
            power_cut="nothing lost, unless it hits two servers at once",
        ),
    ),
    summary="Queues as topics of Apache Kafka: acknowledged one by one, in order within a key.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the broker ``kafka``."""
    return [SPEC]


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at."""
    return [Check(name="kafka", run="boost_broker_kafka.checks:check", broker="kafka")]
