"""Plugins in use: what is imported and when, by which words they are chosen, and whom a broken one harms."""

from __future__ import annotations

import json
import sys

import pytest
from boost_core import App
from boost_core.errors import BadOption, UnsupportedCapability
from boost_core.plugin import BrokerSpec, Capability
from boost_core.registry.index import scan
from boost_core.registry.registry import Registry
from sites import Site, broker, brokers, error_of, site_fixture  # noqa: F401 - a fixture

LIKE_MEMORY = "capabilities=frozenset(Capability), limits=Limits(priorities=9), store='memory'"


def acme(name: str = "acme", factory: str = "boost_core.builtin.memory:MemoryBroker", more: str = "") -> str:
    """Return the text of a plugin with a broker that works: the memory broker under another name."""
    return brokers(f"BrokerSpec(name={name!r}, factory={factory!r}, {LIKE_MEMORY}{more})")


def app_on(site: Site, **given: object) -> App:
    """Return an app that finds what is installed in the folder beside the installed ones."""
    app = App("test", store="memory", **given)
    app.registry = site.registry(app.settings.get("disable"), alone=False)
    return app


# --- what is imported, and when ------------------------------------------------------------------------------


def test_a_plugin_is_used_by_its_name(site: Site) -> None:
    """A broker of an installed distribution carries a job to a worker and back, as core's own do."""
    site.install("acme-boost", text=acme(), points=["brokers:acme"])
    app = app_on(site, broker="acme")

    @app.boost("double", results=True)
    def double(number: int) -> int:
        return 2 * number

    with app.worker():
        assert double.push(21).get(timeout=10) == 42
    assert double.plan.broker.name == "acme"
    assert app.registry.provider(double.plan.broker).distribution == "acme-boost"
    app.close()


def test_only_the_plugin_that_is_asked_for_is_imported(site: Site) -> None:
    """Scanning and listing names import nothing; a name imports its plugin's light module, its code comes later."""
    asked = site.install("acme-boost", text=acme(factory="nowhere:Broker"), points=["brokers:acme"])
    other = site.install("acme-other", text=brokers(broker("other")), points=["brokers:other"])
    registry = site.registry()
    before = set(sys.modules)

    assert registry.installed("broker") == ["acme", "other"]
    assert set(sys.modules) == before

    registry.broker("acme")
    registry.broker("acme")

    assert set(sys.modules) - before == {asked, f"{asked}.plugin"}
    assert other not in sys.modules


def test_a_broken_plugin_harms_nobody_who_doesnt_ask_for_it(site: Site) -> None:
    """Beside a broken broker, pool, codec and store, and two of one name, another broker works and is listed."""
    kinds = ["brokers", "pools", "codecs", "stores"]
    site.install("acme-broken", text="import absent", points=[f"{kind}:broken" for kind in kinds])
    site.install("acme-twin", text="import absent", points=["brokers:broken"])
    site.install("acme-boost", text=acme(more=", schemes=('acmes',)"), points=["brokers:acme"])
    app = app_on(site, broker="acme")

    @app.boost("job", results=True)
    def job() -> str:
        return "done"

    with app.worker():
        assert job.push().get(timeout=10) == "done"
    assert "acme" in app.registry.with_capability(Capability.FAIR)
    assert app.registry.find("broker", "acmes://host") == (app.registry.broker("acme"), "acmes://host")
    app.close()


def test_one_module_may_serve_several_names(site: Site) -> None:
    """Each name gets the spec that bears it, whichever is asked for first."""
    site.install("acme-boost", text=brokers(broker("one"), broker("two")), points=["brokers:two", "brokers:one"])
    registry = site.registry()

    assert [registry.broker(name).name for name in ("two", "one")] == ["two", "one"]


def test_a_package_is_located_where_it_really_is(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A single module, or an editable install, whose package lies elsewhere on the path than its metadata."""
    site.install("acme-one", points=["brokers:one"])
    entry_points = site.folder / "acme_one-1.4.0.dist-info" / "entry_points.txt"
    (site.folder / "acme_single_90.py").touch()
    entry_points.write_text("[boost.brokers]\none = acme_single_90\n")
    away = tmp_path_factory.mktemp("away")
    (away / "acme_away_91").mkdir()
    (away / "acme_away_91" / "__init__.py").touch()
    sys.path.append(str(away))
    try:
        with entry_points.open("a") as file:
            file.write("two = acme_away_91.plugin\nthree = acme_nowhere.plugin\n")
        located = {entry.name: entry.location for entry in scan([str(site.folder)])}
    finally:
        sys.path.remove(str(away))

    assert located == {
        "one": str(site.folder / "acme_single_90.py"),
        "two": str(away / "acme_away_91"),
        "three": str(site.folder / "acme_nowhere"),
    }


# --- by which words ------------------------------------------------------------------------------------------


def test_a_scheme_picks_the_plugin_and_the_url_becomes_its_option(site: Site) -> None:
    """``broker="acmes://..."`` means the plugin that declares the scheme, and hands it the URL."""
    text = brokers(
        broker("acme", schemes="('acmes',)", options="Options"),
        head="@attrs.frozen(kw_only=True)\nclass Options:\n    url: str = option('', help='Where.')\n",
    )
    site.install("acme-boost", text=text, points=["brokers:acme"])
    app = app_on(site, broker="acmes://user:hunter2@host/1")

    @app.boost("job")
    def job() -> None: ...

    assert job.plan.broker.name == "acme"
    assert job.plan.broker_options.url == "acmes://user:hunter2@host/1"


def test_a_spec_given_directly_needs_no_installation() -> None:
    """Where nothing is installed a spec still names its code, and what fails to import is its author's own error."""
    registry = Registry(entries=())
    spec = BrokerSpec(name="mine", factory="boost_core.builtin.memory:MemoryBroker")
    wrong = BrokerSpec(name="mine", factory="absent_module:Broker")

    assert registry.find("broker", spec) == (spec, None)
    assert registry.load(spec).__name__ == "MemoryBroker"
    assert registry.provider(spec).distribution == "boost_core"
    with pytest.raises(ModuleNotFoundError, match="absent_module"):
        registry.load(wrong)


@pytest.mark.parametrize(("disabled", "by"), [("acme", "acme"), ("Acme_Boost", "acme-boost")])
def test_what_is_disabled_is_named_as_such(site: Site, disabled: str, by: str) -> None:
    """A plugin or a distribution that is switched off isn't imported, and the error says what to change."""
    package = site.install("acme-boost", text=acme(), points=["brokers:acme"])
    registry = site.registry([disabled])

    assert error_of(registry, "acme") == (
        "BadOption: the broker 'acme' (acme-boost 1.4.0) is installed, but disabled.\n"
        f"  Take '{by}' out of BOOST_DISABLE, disable= or [tool.boost] disable."
    )
    assert registry.installed("broker") == []
    assert registry.status()[0].status == "disabled"
    assert package not in sys.modules


def test_what_a_broker_cant_do_names_the_installed_brokers_that_can(site: Site) -> None:
    """The error for a missing capability, word for word; broken brokers aren't offered."""
    site.install("acme-fanout", text=brokers(broker("fanout")), points=["brokers:fanout"])
    site.install("acme-a", text=brokers(broker("redis", capabilities="frozenset({Capability.PRIORITY})")))
    (site.folder / "acme_a-1.4.0.dist-info" / "entry_points.txt").write_text("")
    for name in ("sqlite", "redis"):
        able = brokers(broker(name, capabilities="frozenset({Capability.PRIORITY})"))
        site.install(f"acme-{name}", text=able, points=[f"brokers:{name}"])
    site.install("acme-broken", text="import absent", points=["brokers:broken"])
    app = App("test", broker="fanout")
    core = [entry for entry in scan() if entry.distribution == "boost-core" and entry.kind != "broker"]
    app.registry = Registry(entries=[*scan([str(site.folder)]), *core])

    @app.boost(name="mail.send", priority=3)
    def send() -> None: ...

    with pytest.raises(UnsupportedCapability) as caught:
        app.check()

    assert str(caught.value) == (
        "task 'mail.send' asks for priority=3, but broker 'fanout' has no capability 'priority'.\n"
        "  Installed brokers that have it: redis, sqlite."
    )


# --- options of tasks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("retrys", "a task has no option 'retrys'. Did you mean 'retries'?"),
        (
            "qps",
            (
                "'qps' is an option of the control 'rate', which is not installed.\n"
                "  Install it:        pip install boost-control-rate"
            ),
        ),
    ],
)
def test_an_unknown_option_names_its_owner_or_what_is_near(app: App, option: str, text: str) -> None:
    """A task option that nobody installed owns is an error at first use, with the package that brings it."""
    task = app.boost("job", **{option: 3})(lambda: None)

    with pytest.raises(BadOption) as caught:
        task.push()

    assert str(caught.value) == text


def test_an_option_of_a_disabled_control_says_so(site: Site) -> None:
    """Installing again wouldn't help: what has to change is the setting."""
    site.install("boost-control-rate", text="", points=["controls:rate"])
    (site.folder / "jobs.py").write_text("from boost_core import boost\n@boost('job', qps=1)\ndef job(): ...\n")

    done = site.boost("explain", "jobs.py", BOOST_DISABLE="rate", BOOST_BROKER="memory")

    assert done.returncode == 5
    assert done.stderr == (
        "BadOption: 'qps' is an option of the control 'rate', which is disabled.\n"
        "  Take 'rate' or 'boost-control-rate' out of BOOST_DISABLE, disable= or [tool.boost] disable.\n"
    )


# --- extensions --------------------------------------------------------------------------------------------------

EXTENSION = """
import click
from boost_core.plugin import hookimpl

seen = []

@hookimpl
def boost_configure(settings):
    seen.append(settings.get("broker"))

@hookimpl
def boost_task_declared(task):
    seen.append(task.name)

@hookimpl
def boost_plan(task, plan):
    seen.append("retry" in plan.controls)
    plan.controls.remove("retry")

@hookimpl
def boost_commands(group):
    group.command("acme")(lambda: click.echo("done by acme"))
"""


def test_an_extension_sees_the_app_and_its_tasks(site: Site) -> None:
    """A module of the group ``boost.plugins`` sees settings, then each task as it resolves; it may take controls away."""
    package = site.install("acme-extension", text=EXTENSION, points=["plugins:acme"])
    app = app_on(site, broker="memory")
    app.registry.load_plugins()
    app.registry.configure(app.settings)
    ran = []

    @app.boost("job", results=True)
    def job() -> None:
        ran.append(1)
        raise ValueError

    with app.worker():
        with pytest.raises(Exception, match="ValueError"):
            job.push().get(timeout=10)
    app.close()

    assert sys.modules[f"{package}.plugin"].seen == ["memory", *(["job", True] * 2)]  # by worker and push
    assert ran == [1]


def test_an_extension_adds_commands_and_a_broken_one_costs_a_line(site: Site) -> None:
    """The command line goes on without an extension that doesn't import; ``--no-plugins`` loads none."""
    site.install("acme-extension", text=EXTENSION, points=["plugins:acme"])
    assert site.boost("acme").stdout == "done by acme\n"
    assert site.boost("--no-plugins", "acme").returncode == 2

    site.install("acme-broken", text="import absent", points=["plugins:broken"])
    listed = site.boost("plugins")

    assert listed.returncode == 0
    assert listed.stderr == (
        "PluginBroken: plugin 'broken' (acme-broken 1.4.0) can't be used.\n"
        "  ModuleNotFoundError: No module named 'absent'\n"
    )


def test_an_extension_that_exits_while_it_adds_commands_costs_a_line(site: Site) -> None:
    """A hook that ends its process ends no command of others."""
    hook = "from boost_core.plugin import hookimpl\n@hookimpl\ndef boost_commands(group):\n    exit(3)\n"
    site.install("acme-leaving", text=hook, points=["plugins:leaving"])

    listed = site.boost("plugins")

    assert listed.returncode == 0
    assert listed.stderr == (
        "PluginBroken: plugin 'leaving' (acme-leaving 1.4.0) can't be used.\n"
        "  its hook boost_commands raised SystemExit: 3\n"
    )


@pytest.mark.parametrize("milestone", ["starting", "ready", "draining", "stopped"])
def test_a_worker_ends_where_a_plugin_fails_at_a_milestone(site: Site, milestone: str) -> None:
    """Whichever hook raises, everything is stopped and closed, and the plugin and its hook are named; the code is 5."""
    hook = f"from boost_core.plugin import hookimpl\n@hookimpl\ndef boost_worker_{milestone}(worker):\n    1 / 0\n"
    site.install("acme-worker", text=hook, points=["plugins:worker"])
    (site.folder / "tasks.py").write_text("from boost_core import boost\n@boost('t')\ndef t(): ...\n")

    done = site.boost("worker", "tasks.py", "--burst", BOOST_BROKER="memory")

    said = (
        "PluginBroken: plugin 'worker' (acme-worker 1.4.0) can't be used.\n"
        f"  its hook boost_worker_{milestone} raised ZeroDivisionError: division by zero\n"
    )
    assert (done.returncode, done.stderr[-len(said) :]) == (5, said)
    assert ("stopped: no jobs\n" in done.stderr) is (milestone != "starting")
    assert "Traceback" not in done.stderr


# --- boost plugins -------------------------------------------------------------------------------------------------


def test_boost_plugins_lists_what_works_and_what_doesnt(site: Site) -> None:
    """One row for each thing found, with its state; nothing that is broken makes the command fail."""
    site.install("acme-good", text=acme("good"), points=["brokers:good"])
    site.install("acme-bad", text="import absent", points=["brokers:bad"])
    site.install("acme-hook", text=brokers("1 / 0"), points=["brokers:hook"])
    site.install("acme-new", "2.3.4", text=brokers(broker("new", api="2")), points=["brokers:new"])
    site.install("acme-off", text=brokers(broker("off")), points=["brokers:off"])
    site.install("acme-x", text=brokers(broker("twin")), points=["brokers:twin"])
    site.install("acme-y", text=brokers(broker("twin")), points=["brokers:twin"])

    done = site.boost("plugins", "-o", "json", BOOST_DISABLE="off")

    assert (done.returncode, done.stderr) == (0, "")
    rows = [row for row in json.loads(done.stdout) if row["distribution"].startswith("acme-")]
    assert [(row["kind"], row["name"], row["distribution"], row["api"], row["status"]) for row in rows] == [
        ("broker", "bad", "acme-bad", None, "broken: ModuleNotFoundError: No module named 'absent'"),
        ("broker", "good", "acme-good", 1, "ok"),
        (
            "broker",
            "hook",
            "acme-hook",
            None,
            "broken: its hook boost_brokers raised ZeroDivisionError: division by zero",
        ),
        ("broker", "new", "acme-new", 2, "incompatible: Upgrade boost-core, or install acme-new<2.3."),
        ("broker", "off", "acme-off", None, "disabled"),
        ("broker", "twin", "acme-x", None, "conflict with acme-y"),
        ("broker", "twin", "acme-y", None, "conflict with acme-x"),
    ]
    assert rows[1]["capabilities"] == sorted(capability.value for capability in Capability)


@pytest.mark.parametrize(
    ("toml", "status", "said"),
    [
        ("[tool.boost]\nnamespace = 'a b'\ndisable = ['off']\n", "disabled", ""),
        ("[tool.boost]\ndisable = 7\n", "ok", "nothing is taken for disabled: the app: option disable=7 can't be used"),
        ("[tool.boost\n", "ok", "nothing is taken for disabled: "),
    ],
)
def test_boost_plugins_bears_settings_that_cant_be_used(site: Site, toml: str, status: str, said: str) -> None:
    """It reads of them what is disabled, and nothing else; where even that can't be, it says so and lists all."""
    (site.folder / "pyproject.toml").write_text(toml)
    site.install("acme-off", text=acme("off"), points=["brokers:off"])

    done = site.boost("plugins", "-o", "json")

    assert done.returncode == 0
    assert done.stderr.startswith(said)
    assert bool(done.stderr) == bool(said)
    assert [row["status"] for row in json.loads(done.stdout) if row["name"] == "off"] == [status]


def test_boost_plugins_is_a_table_for_people(site: Site) -> None:
    """The built-ins stand in it like any other plugin."""
    site.install("acme-bad", text="import absent", points=["brokers:bad"])

    lines = site.boost("plugins").stdout.splitlines()

    assert lines[0].split() == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "API", "STATUS", "CAPABILITIES"]
    assert lines[1].split() == (
        "broker bad acme-bad 1.4.0 - broken: ModuleNotFoundError: No module named 'absent'".split()
    )
    cores = [tuple(line.split()[:3]) for line in lines if "boost-core" in line]
    assert cores == [
        ("broker", "memory", "boost-core"),
        ("codec", "json", "boost-core"),
        ("control", "result", "boost-core"),
        ("control", "retry", "boost-core"),
        ("control", "timeout", "boost-core"),
        ("pool", "asyncio", "boost-core"),
        ("pool", "solo", "boost-core"),
        ("pool", "threads", "boost-core"),
        ("store", "memory", "boost-core"),
    ]
