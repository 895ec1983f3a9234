"""Where the server is and who logs in: read from a URL."""

from __future__ import annotations

import re
import ssl
from typing import Final
from urllib.parse import unquote

import attrs
from boost_core.plugin import BrokerUnavailable, mask_url

from boost_broker_rabbitmq.plugin import RabbitOptions

LOCAL: Final = "amqp://guest:guest@127.0.0.1:5672/"
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::(\d{1,5}))?")


@attrs.frozen
class Address:
    """One server or the nodes of a cluster, and the login. ``shown`` is the URL without its password."""

    shown: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str = attrs.field(repr=False)
    vhost: str

    @classmethod
    def of(cls, options: RabbitOptions) -> Address:
        """Return what the URL says. Raises ``BrokerUnavailable`` for a host that can't be read."""
        url = options.url.reveal() if options.url else LOCAL
        scheme, _, rest = url.partition("://")
        where, _, path = rest.partition("/")
        login, _, hosts = where.rpartition("@")
        user, _, password = (login or "guest:guest").partition(":")
        shown = mask_url(url)
        return cls(
            shown=shown,
            tls=scheme == "amqps",
            hosts=tuple(_host(text, _PORTS[scheme], shown) for text in hosts.split(",")),
            user=unquote(user),
            password=unquote(password),
            vhost=unquote(path) or "/",
        )


def _host(text: str, port: int, shown: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text.strip())
    if found is None:
        problem = f"{text.strip()!r} in {shown} is no host or host:port"
        raise BrokerUnavailable("rabbitmq", problem, "Write amqp://user:password@host:port/vhost.")
    return found[1].strip("[]") or "127.0.0.1", int(found[2] or port)


def tls_context(options: RabbitOptions) -> ssl.SSLContext:
    """Return what connections are secured with. Raises ``BrokerUnavailable`` for files that can't be used."""
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(repr(name) for name in (options.tls_ca, options.tls_cert, options.tls_key) if name)
        problem = f"TLS can't be set up with {files}: {error}"
        fix = "See the options tls_ca, tls_cert and tls_key: files in PEM."
        raise BrokerUnavailable("rabbitmq", problem, fix) from error
    return context
