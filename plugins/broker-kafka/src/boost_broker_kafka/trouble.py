"""What librdkafka says of its connections, put into one sentence and a remedy."""

from __future__ import annotations

import logging
import re
from typing import Final

from boost_core.plugin import BrokerUnavailable
from confluent_kafka import KafkaError

from boost_broker_kafka.plugin import KafkaOptions

log = logging.getLogger("boost.broker.kafka")

_STATE: Final = re.compile(r" \(after \d+ms in state .*\)$")
_WHERE: Final = re.compile(r"(?:\w+://)?([^/]+)/\w+: (.*)", re.DOTALL)
_CONNECT: Final = re.compile(r"Connect to \S+ failed: ")
_HARD: Final = (KafkaError._AUTHENTICATION, KafkaError._RESOLVE, KafkaError._SSL, KafkaError._BAD_MSG)
_UNREACHED = "no server can be reached"
_ADDRESS = 'Start it, or say where it is: url="kafka://host:9092".'


class Trouble:
    """Listens to one client's ``error_cb``: whether all servers are away, and why."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._last: KafkaError | None = None
        self._told = False
        self.down = False

    def hear(self, error: KafkaError) -> None:
        """Take note of an error; given to librdkafka as ``error_cb``."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if not self._told:
                log.info("no server of %s answers: %s", self._options.address.servers, self.reason())
            self.down = self._told = True
        else:
            self._last = error

    def forget(self) -> None:
        """Listen anew: what was heard so far is of the past."""
        self.down, self._last = False, None

    def over(self) -> None:
        """Note that a server answered."""
        if self._told:
            log.info("a server of %s answers again", self._options.address.servers)
        self._told = False
        self.forget()

    @property
    def hopeless(self) -> bool:
        """Whether waiting is of no use: every server refuses, or isn't one."""
        if not self.down or self._last is None:
            return False
        return self._last.code() in _HARD or any(word in self._last.str() for word in ("refused", "SSL", "protocol"))

    def reason(self) -> str:
        """Return what was heard last, without the state of librdkafka's machinery."""
        if self._last is None:
            return "no answer"
        text = _STATE.sub("", self._last.str())
        found = _WHERE.fullmatch(text)
        where, what = found.groups() if found else ("", text)
        return f"{where}: {_CONNECT.sub('', what)}" if where else what

    def unavailable(self) -> BrokerUnavailable:
        """Return the error for servers that can't be reached, with the remedy."""
        options = self._options
        servers, tls = options.address.servers, "on" if options.address.tls else "off"
        check_tls = f"TLS is {tls} here; check tls, ca_file and the port."
        if self._last is None and self.down:
            return _error(f"{_UNREACHED}: {servers} ends connections without a word", check_tls)
        if self._last is None:
            problem = f"{_UNREACHED}: {servers} gave no answer within {options.timeout:g} s"
            return _error(problem, "Look whether the server hangs, and at what lies in between.")
        code, text = self._last.code(), self._last.str()
        if code == KafkaError._AUTHENTICATION:
            fix = f"Check username, password and mechanism ({options.mechanism} now)."
            return _error(f"user {options.address.username!r} can't log in: {self.reason()}", fix)
        if code == KafkaError._BAD_MSG:
            return _error(f"{servers} answers, but not as Kafka does: {self.reason()}", _ADDRESS)
        is_tls = code == KafkaError._SSL or "SSL" in text or "security.protocol" in text
        return _error(f"{_UNREACHED}: {self.reason()}", check_tls if is_tls else _ADDRESS)


def _error(problem: str, fix: str) -> BrokerUnavailable:
    return BrokerUnavailable("kafka", problem, fix)


def refusal(error: KafkaError, topic: str | None, options: KafkaOptions) -> BrokerUnavailable | None:
    """Return what it means that the servers refuse to let a worker read; None if the error isn't that."""
    code = error.code()
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return _error(f"no permission to read topic {topic!r}", "Allow Read on it.")
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return _error(f"no permission to be in group {options.group!r}", "Allow Read on it, or set another group.")
    if code == KafkaError.INVALID_SESSION_TIMEOUT:
        problem = f"the servers don't take session_timeout={options.session_timeout:g}"
        return _error(problem, "They take 6 s to 30 min, or what group.min.session.timeout.ms and its like say.")
    if code == KafkaError.INCONSISTENT_GROUP_PROTOCOL:
        return _error(f"group {options.group!r} has members that aren't workers of boost", "Set another group.")
    if code in (KafkaError.GROUP_MAX_SIZE_REACHED, KafkaError.INVALID_GROUP_ID, KafkaError.UNSUPPORTED_VERSION):
        return _error(f"group {options.group!r} can't be joined: {error.str()}", "Look at what the servers allow.")
    return None
