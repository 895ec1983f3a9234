"""What core reads of this package without loading the client."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

import attrs
from boost_core.plugin import (
    BadOption,
    BrokerSpec,
    Capability,
    Check,
    Flavour,
    Guarantee,
    Limits,
    Secret,
    duration,
    hookimpl,
    option,
)

HEADROOM: Final = 4096
"""Bytes of the server's ``max_payload`` that are kept free for headers."""

MOST_PAYLOAD: Final = 32 * 1024 * 1024
"""What JetStream stores of one message at most, whatever ``max_payload`` the server has."""

TAKEOVER_MARGIN: Final = 5.0
"""What the server and a waiting worker may take once a dead worker's lease is over, in seconds."""

LATER: Final = frozenset({Capability.DELAY, Capability.TTL})
"""What needs the message schedules of server 2.12."""


def _urls(value: Secret) -> str | None:
    for url in split_urls(value):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("nats", "tls"):
            return f"its scheme is {parts.scheme!r}; give nats://host:port or tls://host:port"
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            return "it has a host, a port and a login, and nothing behind them"
        if not _has_port(parts):
            return "its port must be a number from 1 to 65535"
    return None


def _has_port(parts: urllib.parse.SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # it quotes what may be a piece of a password
        return False


def _inbox(value: str) -> str | None:
    if not re.fullmatch(r"[^\s.*>]+(\.[^\s.*>]+)*", value):
        return "it is a subject: words without spaces, * and >, and dots between them"
    taken = value.partition(".")[0] in ("$JS", "$SYS", "boost")
    return "what is sent there has another meaning for the server, or for queues" if taken else None


def split_urls(urls: Secret) -> list[str]:
    """Return the addresses of a cluster, given with commas between them."""
    return [url.strip() for url in urls.reveal().split(",")]


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


def _replicas(value: int) -> str | None:
    return None if 1 <= value <= 5 else "JetStream keeps 1 to 5 copies"  # noqa: PLR2004 - its own bound


def _payload(value: int) -> str | None:
    if value > MOST_PAYLOAD:
        return f"JetStream stores messages of {MOST_PAYLOAD:,} bytes at most"
    return None if value > HEADROOM else f"headers alone may take {HEADROOM:,} bytes"


@attrs.frozen(kw_only=True)
class NatsOptions:
    """The options of broker ``nats``."""

    url: Secret = option(
        Secret("nats://127.0.0.1:4222"),
        check=_urls,
        help="nats://user:password@host:port, nats://token@host:port, tls://...; several of a cluster with commas.",
    )
    user: str | None = option(None, help="Who logs in, where the URL doesn't say.")
    password: Secret | None = option(None, help="The user's password.")
    token: Secret | None = option(None, help="A token to log in with.")
    credentials: str | None = option(None, help="File with the JWT and the seed of a user (.creds).")
    nkey: str | None = option(None, help="File with the seed of an nkey.")
    tls_ca: str | None = option(
        None, help="File with the authority to trust, by default the system's; it asks for TLS."
    )
    tls_cert: str | None = option(None, help="File with the client's certificate; it asks for TLS.")
    tls_key: str | None = option(None, help="File with the key of the client's certificate.")
    inbox: str = option("_INBOX", check=_inbox, help="What the subjects of answers begin with.")
    replicas: int = option(1, check=_replicas, help="How many servers of a cluster keep each message.")
    delays: bool = option(
        True, help="Have the server hold delayed messages and remove expired ones; False for servers before 2.12."
    )
    max_payload: int = option(1024 * 1024, check=_payload, help="The server's max_payload, in bytes; 32 MiB at most.")
    lease: float = option(
        15.0, convert=duration, check=_positive, help="Seconds until a dead or stalled worker's messages go to another."
    )
    timeout: float = option(10.0, convert=duration, check=_positive, help="Longest wait for the server, in seconds.")

    def __attrs_post_init__(self) -> None:
        """Refuse halves of what can only be used whole."""
        if (self.user is None) != (self.password is None):
            raise BadOption("broker 'nats' has one of 'user' and 'password'", "Give both, or neither.")
        if self.tls_key is not None and self.tls_cert is None:
            raise BadOption("broker 'nats' has a 'tls_key', but no 'tls_cert'", "Give both, or neither.")

    def effective(self, spec: BrokerSpec) -> tuple[frozenset[Capability], Limits]:
        """Return what these options leave of the capabilities, and the limits that follow from them."""
        limits = attrs.evolve(
            spec.limits,
            max_body=self.max_payload - HEADROOM,
            lease=self.lease,
            takeover=self.lease + TAKEOVER_MARGIN,
        )
        return spec.capabilities if self.delays else spec.capabilities - LATER, limits


SPEC: Final = BrokerSpec(
    name="nats",
    factory="boost_broker_nats.broker:NatsBroker",
    options=NatsOptions,
    flavour=Flavour.ASYNC,
    schemes=("tls",),
    capabilities=LATER
    | {
        Capability.ACK,
        Capability.PERSISTENT,
        Capability.LEASES,
        Capability.ORDERED,
        Capability.DEDUP,
        Capability.BATCH_PUBLISH,
        Capability.BATCH_FETCH,
        Capability.BATCH_ACK,
        Capability.DEPTH,
        Capability.PURGE,
        Capability.PEEK,
    },
    limits=Limits(max_body=1024 * 1024 - HEADROOM, lease=15.0, takeover=20.0),
    guarantees=(
        Guarantee(
            when="one server as it comes (default)",
            worker_killed="nothing lost, taken over within 20 s",
            all_killed="nothing lost",
            power_cut="the pushes of the last two minutes may be lost",
        ),
        Guarantee(
            when="one server with `sync_interval: always`",
            worker_killed="nothing lost, taken over within 20 s",
            all_killed="nothing lost",
            power_cut="nothing lost",
        ),
        Guarantee(
            when="`replicas=3`",
            worker_killed="nothing lost, taken over within 20 s",
            all_killed="nothing lost",
            power_cut="nothing lost while two of three servers go on",
        ),
    ),
    summary="Work queues of NATS JetStream: pull consumers, leases, schedules; written in coroutines.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the broker ``nats``."""
    return [SPEC]


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at."""
    return [Check(name="nats", run="boost_broker_nats.checks:check", broker="nats")]
