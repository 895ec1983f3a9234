"""Where the server is and who logs in: read from a URL."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import unquote

import attrs
from boost_core.plugin import BrokerUnavailable, mask_url

from boost_broker_rabbitmq.plugin import Parts, RabbitOptions

LOCAL: Final = "amqp://guest:guest@127.0.0.1:5672/"


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
        """Return what the URL says, which was found to be one when the options were read."""
        url = options.url.reveal() if options.url else LOCAL
        parts = Parts.of(url)
        user, _, password = (parts.login or "guest:guest").partition(":")
        return cls(
            shown=mask_url(url),
            tls=parts.scheme == "amqps",
            hosts=parts.hosts,
            user=unquote(user),
            password=unquote(password),
            vhost=unquote(parts.vhost) or "/",
        )


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
