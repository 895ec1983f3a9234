"""What ``boost doctor`` says of servers."""

from __future__ import annotations

import re
from pathlib import Path

from boost_broker_redis.checks import check
from boost_broker_redis.plugin import boost_checks
from boost_core import App
from boost_core.plugin import Examined, Level
from redis_impostor import Impostor
from redis_stage import build_broker, client, key, make_broker, problem_of, push, until, user


class TestChecks:
    """What ``boost doctor`` says of a server."""

    def findings(self, name, url, **options):
        """Return the findings of a broker that may not even open."""
        broker = make_broker(name, url, **options)
        found = [(each.level, each.text) for each in check(Examined(broker=broker)) if "round trip" not in each.text]
        broker.close()
        return found

    def test_a_good_server(self, name, server):
        """A good one is described in a line."""
        (level, text), *more = self.findings(name, server.url)

        assert (level, more) == (Level.OK, [])
        assert re.fullmatch(
            r"(Redis|Valkey) [\d.]+, appendonly yes, appendfsync everysec, maxmemory-policy noeviction", text
        )
        assert name in {each.broker for each in boost_checks()}

    def test_a_bad_server(self, name, launch):
        """What may lose messages is a danger, and a warning where it was accepted."""
        server = launch(settings={"appendonly": "no", "maxmemory-policy": "volatile-ttl"})

        for options, level in (({}, Level.DANGER), ({"durability": "none"}, Level.WARNING)):
            assert self.findings(name, server.url, **options)[1:] == [
                (level, "it keeps messages in memory only (appendonly no): a crash loses them"),
                (level, "it drops messages when its memory is full (maxmemory-policy volatile-ttl)"),
            ]

    def test_what_a_user_may_not_store(self, name, launch):
        """Queues are tried: a command that is missing, or a foreign key, is a danger. Nothing is left behind."""
        url = f"{name}{user(launch, '~boost*', '&boost:*', '+@all', '-zadd', '-xadd')[5:]}"
        free = url.replace("me:sesame@", "")
        taken = key(name, "taken", "ready" if name == "redis" else "stream")
        with client(f"redis{free[len(name) :]}") as asking:
            asking.set(taken, "x")
            forbidden, allowed = self.dangers(url, "free", "taken"), self.dangers(free, "free", "taken")
            left = asking.keys()

        assert [text.partition(" refuses this user: ")[2][-14:] for text in forbidden] == ["(queue 'free')"]
        assert [text.partition(" has other programs' keys ")[2] for text in allowed] == [
            "where a queue's should be (queue 'taken')"
        ]
        assert left == [taken]

    def dangers(self, url, *queues):
        """Return what is dangerous for tasks on queues."""
        app = App("doubtful", broker=url, store="memory")
        plans = tuple(app.boost(queue)(lambda: None).plan for queue in queues)
        broker = app.services.broker(plans[0].broker, plans[0].broker_options)
        found = [each.text for each in check(Examined(broker=broker, plans=plans)) if each.level is Level.DANGER]
        app.close()
        return found

    def test_a_log_that_reached_no_disk(self, name):
        """A server that failed to write its log is a danger, and isn't worked on; one that can't rewrite it, a warning."""
        good = "redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction"
        with Impostor(f"{good}\r\naof_last_write_status:err\r\naof_last_bgrewrite_status:err") as port:
            problem = problem_of(name, f"redis://127.0.0.1:{port}")
            found = self.findings(name, f"redis://127.0.0.1:{port}")

        text = "couldn't write its log (aof_last_write_status err): a crash loses what isn't on its disk"
        assert f"{text}\n  Make room on its disk, and see its log; or accept the loss" in problem
        assert (Level.DANGER, f"it {text}") in found
        assert (Level.WARNING, "it couldn't rewrite its log, which grows on (aof_last_bgrewrite_status err)") in found

    def test_age_of_the_last_snapshot(self, name, launch, queue):
        """Where snapshots are all there is, their age is told and what has changed since; one that failed is a warning."""
        server = launch(settings={"appendonly": "no"})
        broker = build_broker(name, server.url, durability="none")
        push(broker, queue, "x")
        broker.close()
        before = self.findings(name, server.url, durability="none")
        with client(server.url) as asking:
            Path(asking.config_get("dir")["dir"], "dump.rdb", "in the way").mkdir(parents=True)
            asking.bgsave()
            until(lambda: asking.info("persistence")["rdb_last_bgsave_status"] == "err")
        after = self.findings(name, server.url, durability="none")

        assert re.search(r"noeviction, \d+ changes since its last snapshot or start 0:0\d:\d\d ago$", before[0][1])
        failed = (Level.WARNING, "it couldn't write its last snapshot (rdb_last_bgsave_status err)")
        assert (failed in before, failed in after) == (False, True)

    def test_doubts(self, name, launch):
        """What reaches the disk late, and what isn't said, are warnings."""
        late = launch(settings={"appendfsync": "no"})
        secret = user(launch, "~*", "&*", "+@all", "-config")

        assert [level for level, _ in self.findings(name, late.url)] == [Level.OK, Level.WARNING]
        assert [level for level, _ in self.findings(name, secret)] == [Level.OK, Level.WARNING]

    def test_clock(self, name):
        """A server whose clock is far from this machine's is told."""
        with Impostor("redis_version:7.0.0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction") as port:
            found = self.findings(name, f"redis://127.0.0.1:{port}")

        assert any(re.match(r"its clock is \d+\.\d s behind this machine's", text) for _, text in found)
