"""What is said before any queue is used: options, and what topics are called."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.parse

import pytest
from boost_broker_kafka.plugin import SPEC, KafkaOptions
from boost_broker_kafka.topics import LONGEST, delay_topic, topic_of
from boost_core.options import build_options
from boost_core.plugin import (
    BadOption,
    Capability,
)
from kafka_stage import make_broker

OWNER = "broker 'kafka'"


def problem(**options):
    """Return the text of what these options raise."""
    with pytest.raises(BadOption) as caught:
        build_options(OWNER, KafkaOptions, options)
    return str(caught.value)


class TestOptions:
    """Where the servers are, and who logs in."""

    def test_reading_them_loads_no_client(self):
        """What core reads of the package doesn't import confluent-kafka."""
        code = "import sys, boost_broker_kafka.plugin as p; p.SPEC; print('confluent_kafka' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("amqp://h", "its scheme is 'amqp'; give 'kafka' or, for TLS, 'kafkas'"),
            ("kafka://", "after the login it has host:port, several with commas between, and nothing else"),
            ("kafka://h/0", "after the login it has host:port, several with commas between, and nothing else"),
            ("kafka://h?acks=1", "after the login it has host:port, several with commas between, and nothing else"),
            (
                "kafka://u:pass/word@h",
                "after the login it has host:port, several with commas between, and nothing else",
            ),
            ("kafka://h:99999", "the port of 'h' is none; give 1 to 65535"),
            ("kafka://h:0", "the port of 'h' is none; give 1 to 65535"),
            ("kafka://a:1,[::1]:abc", "the port of '[::1]' is none; give 1 to 65535"),
            ("kafka://user:secret", "the port of 'user' is none; give 1 to 65535"),
        ],
    )
    def test_url_that_can_not_be_meant(self, url, reason):
        """A URL's mistake is named, and what may be secret in it doesn't show."""
        assert problem(url=url) == f"{OWNER}: option url='***' can't be used: {reason}"

    def test_servers_that_can_not_be_meant(self):
        """A port that is none is refused before anything dials another one; IPv6 and no port at all are fine."""
        reason = "the port of 'b' is none; give 1 to 65535"

        assert (
            problem(bootstrap_servers="a:1,b:x")
            == f"{OWNER}: option bootstrap_servers='a:1,b:x' can't be used: {reason}"
        )
        for servers in ("a", "a:1,b:65535", "[::1]:9092", "::1"):
            assert build_options(OWNER, KafkaOptions, {"bootstrap_servers": servers}).address.servers == servers

    def test_what_can_not_be_meant_together(self):
        """Two places, half a login and half a certificate are refused."""
        both = {"url": "kafka://h", "bootstrap_servers": "h:1"}
        assert problem(**both) == f"{OWNER} has both 'url' and 'bootstrap_servers'\n  Give one of them."
        assert problem(username="u") == f"{OWNER} has a username, but no password\n  Give both, or neither."
        assert problem(url="kafka://:p@h") == f"{OWNER} has a password, but no username\n  Give both, or neither."
        assert problem(cert_file="c") == f"{OWNER} has one of 'cert_file' and 'key_file'\n  Give both, or neither."

    @pytest.mark.parametrize("setting", ["acks", "enable.auto.commit", "group.id", "partition.assignment.strategy"])
    def test_settings_that_are_ours(self, setting):
        """What the guarantees rest on can't be set behind their back."""
        assert problem(client={setting: "1"}).endswith(f"can't be used: {setting!r} is not for it to set")

    def test_nothing_secret_shows(self):
        """Passwords don't show in the options, nor in where the broker is."""
        broker = make_broker("kafkas://me:sesame@a:1,b:2", client="ssl.key.password=sesame,client.rack=r1")

        assert broker.where() == "kafkas://me:***@a:1,b:2"
        assert "sesame" not in repr(broker.options)
        assert dict(broker.options.client)["client.rack"].reveal() == "r1"

    def test_options_move_the_limits(self):
        """One partition keeps a queue's order; body and take-over are as large as the options say."""
        capabilities, limits = build_options(
            OWNER, KafkaOptions, {"partitions": 1, "max_body": 5000, "session_timeout": "30s"}
        ).effective(SPEC)

        assert capabilities - SPEC.capabilities == {Capability.ORDERED}
        assert (limits.max_body, limits.takeover) == (5000, 35.0)


class TestTopics:
    """What topics are called."""

    @pytest.mark.parametrize("queue", ["a", "a-b.c_d", "x" * LONGEST, "prod.mail.dead"])
    def test_kafkas_own_names_stay(self, queue):
        """A queue whose name Kafka takes has a topic of that name."""
        assert topic_of(queue) == queue

    @pytest.mark.parametrize("queue", ["a/b", "two words", "队列", ".", "..", "q--x", "mail-delay", "a\tb", "%-_."])
    def test_other_names_are_escaped_reversibly(self, queue):
        """Any other name is spelled in what Kafka takes, and can be read back."""
        topic = topic_of(queue)

        assert re.fullmatch(r"q--[A-Za-z0-9._-]{1,240}", topic)
        assert urllib.parse.unquote(topic.removeprefix("q--").replace("-", "%")) == queue

    def test_no_two_queues_share_a_topic(self):
        """Also not where a name looks like another's escape, delay topic, or beginning."""
        queues = ["a", "a-delay", "q--a", "q--a-delay", "a/", "q--a-2F", "列" * 100, "列" * 101, "x" * 244, "x" * 245]
        topics = [name for queue in queues for name in (topic_of(queue), delay_topic(queue))]

        assert len(set(topics)) == len(topics)
        assert all(len(topic) <= 249 for topic in topics)
