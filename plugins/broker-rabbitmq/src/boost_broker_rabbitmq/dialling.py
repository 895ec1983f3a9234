"""How connections are made: to the first host that takes them, each within its deadline."""

from __future__ import annotations

import random
import ssl
import time

from boost_core.plugin import BrokerUnavailable

from boost_broker_rabbitmq.address import Address, tls_context
from boost_broker_rabbitmq.connection import Connection
from boost_broker_rabbitmq.diagnosis import NAME, unreachable
from boost_broker_rabbitmq.plugin import RabbitOptions
from boost_broker_rabbitmq.wire import Wire


class Dialler:
    """Dials for all parts of one broker. Thread-safe. The host that answered last is tried first."""

    def __init__(self, address: Address, options: RabbitOptions) -> None:
        self._address = address
        self._heartbeat = options.heartbeat
        self._context: ssl.SSLContext | None = tls_context(options) if address.tls else None
        hosts = list(address.hosts)
        if len(hosts) > 1:
            random.shuffle(hosts)  # so that a cluster's nodes share its clients
        self._hosts = hosts

    def dial(self, purpose: str, until: float, *, owned: bool = False) -> Connection:
        """Return a connection; one that is ``owned`` by a native thread has heartbeats.

        Raises ``BrokerUnavailable`` by ``until`` (monotonic), with what each host said.
        """
        errors: list[BrokerUnavailable] = []
        for number, host in enumerate(self._hosts):
            left = until - time.monotonic()
            share = left / (len(self._hosts) - number)  # a host that hangs must not use up the others' time
            try:
                connection = self._dial(host, purpose, time.monotonic() + share, owned=owned)
            except BrokerUnavailable as error:
                errors.append(error)
                continue
            self._hosts = [host, *(other for other in self._hosts if other != host)]
            return connection
        if len(errors) == 1:
            raise errors[0]
        problem = "none of its hosts can be used: " + "; ".join(error.problem for error in errors)
        raise BrokerUnavailable(NAME, problem, errors[0].fix)

    def _dial(self, host: tuple[str, int], purpose: str, until: float, *, owned: bool) -> Connection:
        wire = Wire(*host, self._context)
        wire.until = until
        beat = self._heartbeat if owned else 0
        connection = Connection(wire, self._address, purpose=purpose, heartbeat=beat)
        try:
            connection.connect()
        except Exception as error:  # whatever py-amqp makes of what it can't read is the server's fault
            wire.close()
            raise unreachable(error, self._address, *host) from error
        return connection
