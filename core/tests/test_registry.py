"""Plugins that can't be used: unknown, broken, provided twice, of another API. What is said, word for word."""

from __future__ import annotations

import pytest
from boost_core import __version__
from boost_core.errors import (
    BadOption,
    BoostError,
    BrokerNotFound,
    CodecNotFound,
    ControlNotFound,
    PluginBroken,
    PoolNotFound,
    StoreNotFound,
)
from boost_core.registry.index import scan
from sites import Site, broker, brokers, error_of, site_fixture  # noqa: F401 - a fixture

SHORT = ".".join(__version__.split(".")[:2])


# --- names that nobody provides ------------------------------------------------------------------------------


def test_an_unknown_broker_that_is_known_elsewhere_says_what_to_install(site: Site) -> None:
    """The distribution of this project that brings it, and what is installed."""
    site.install("boost-one", points=["brokers:sqlite", "brokers:memory", "brokers:redis", "pools:fast"])

    assert error_of(site.registry()) == (
        "BrokerNotFound: no broker named 'kafka' is installed.\n"
        "  Install it:        pip install boost-broker-kafka\n"
        "  Installed brokers: memory, redis, sqlite"
    )


@pytest.mark.parametrize(
    ("kind", "name", "error", "text"),
    [
        (
            "broker",
            "nonsense",
            BrokerNotFound,
            "no broker named 'nonsense' is installed.\n  Installed brokers: memory, redis",
        ),
        ("broker", "reddis", BrokerNotFound, "no broker named 'reddis' is installed. Did you mean 'redis'?"),
        ("pool", "nonsense", PoolNotFound, "no pool named 'nonsense' is installed.\n  Installed pools: threads"),
        ("pool", "thread", PoolNotFound, "no pool named 'thread' is installed. Did you mean 'threads'?"),
        (
            "pool",
            "gevent",
            PoolNotFound,
            (
                "no pool named 'gevent' is installed.\n"
                "  Install it:      pip install boost-pool-gevent\n"
                "  Installed pools: threads"
            ),
        ),
        (
            "codec",
            "msgpack",
            CodecNotFound,
            (
                "no codec named 'msgpack' is installed.\n"
                "  Install it:       pip install boost-codec-msgpack\n"
                "  Installed codecs: json"
            ),
        ),
        ("codec", "jsn", CodecNotFound, "no codec named 'jsn' is installed. Did you mean 'json'?"),
        ("store", "nonsense", StoreNotFound, "no store named 'nonsense' is installed.\n  Installed stores: none"),
        (
            "control",
            "rate",
            ControlNotFound,
            (
                "no control named 'rate' is installed.\n"
                "  Install it:         pip install boost-control-rate\n"
                "  Installed controls: retry"
            ),
        ),
    ],
)
def test_unknown_names_of_every_kind(site: Site, kind: str, name: str, error: type[BoostError], text: str) -> None:
    """An install hint where this project has the name, a did-you-mean where it is near, and the installed ones."""
    points = ["brokers:memory", "brokers:redis", "pools:threads", "codecs:json", "controls:retry"]
    site.install("boost-one", points=points)

    assert error_of(site.registry(), name, kind) == f"{error.__name__}: {text}"


def test_an_unknown_scheme_is_an_unknown_broker_and_the_url_stays_unseen(site: Site) -> None:
    """The scheme of a URL picks the plugin; the error names it, never the password behind it."""
    with pytest.raises(BrokerNotFound) as caught:
        site.registry().find("broker", "kafka://user:hunter2@host")

    assert str(caught.value).startswith("no broker named 'kafka' is installed.\n  Install it:")
    assert "hunter2" not in str(caught.value)


def test_something_else_than_a_name_is_refused(site: Site) -> None:
    """A broker is a name, a URL or a spec."""
    with pytest.raises(BadOption) as caught:
        site.registry().find("broker", 7)

    assert str(caught.value) == "broker=7 is no broker.\n  Give a name, a URL or a spec."


# --- broken plugins ----------------------------------------------------------------------------------------------


def test_a_plugin_whose_client_is_missing_says_what_it_requires(site: Site) -> None:
    """The import's own error, and the declared requirement that isn't installed: the missing module's, none other."""
    site.install(
        "boost-broker-kafka",
        text="import acme_kafka",
        requires=[
            "absent-too>=1",
            "acme-kafka>=2.6",
            "attrs>=1",
            'tomli>=9; python_version < "3"',
            'x; extra=="dev"',
        ],
    )

    assert error_of(site.registry()) == (
        "PluginBroken: broker 'kafka' (boost-broker-kafka 1.4.0) can't be used.\n"
        "  ModuleNotFoundError: No module named 'acme_kafka'\n"
        "  boost-broker-kafka 1.4.0 requires acme-kafka>=2.6, which is not installed."
    )


def test_requirements_for_other_machines_are_no_explanation(site: Site) -> None:
    """A plugin that fails for a reason of its own isn't explained by extras or by markers that don't hold."""
    requires = ["attrs", 'tomli>=9; python_version < "3"', 'absent-one; extra == "dev"', "absent-two ; extra=='dev'"]
    site.install("acme-kafka", text="raise RuntimeError('no luck')", requires=requires)

    assert error_of(site.registry()) == (
        "PluginBroken: broker 'kafka' (acme-kafka 1.4.0) can't be used.\n  RuntimeError: no luck"
    )


FAULTS = {
    "a syntax error": ("def", "SyntaxError: invalid syntax (plugin.py, line 1)"),
    "a module that exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "no hook": ("", "its module {module} hands over the brokers none, not one 'kafka'"),
    "another name": (
        brokers(broker("kafak")),
        "its module {module} hands over the brokers kafak, not one 'kafka'",
    ),
    "one name twice": (
        brokers(broker(), broker(summary="'again'")),
        "its module {module} hands over the brokers kafka, kafka, not one 'kafka'",
    ),
    "no spec": (brokers("'kafka'"), "its hook boost_brokers returned 'kafka', which is no broker spec"),
    "a spec of another kind": (
        brokers("StoreSpec(name='kafka', factory='a:b')"),
        "its hook boost_brokers returned a store spec",
    ),
    "a hook that fails": (brokers("1 / 0"), "its hook boost_brokers raised ZeroDivisionError: division by zero"),
    "a hook without a value": (
        "def boost_brokers(): pass",
        "its hook boost_brokers raised TypeError: 'NoneType' object is not iterable",
    ),
    "a name that can't be": (
        brokers(broker("Kafka")),
        "its hook boost_brokers raised ValueError: a plugin's name must match [a-z][a-z0-9-]*, not 'Kafka'",
    ),
    "options that are no class": (
        brokers(broker(options="{}")),
        "the options of 'kafka' must be a frozen attrs class, not {{}}",
    ),
    "options that can be changed": (
        brokers(
            broker(options="Options"),
            head="@attrs.define\nclass Options:\n    url: str = attrs.field(default='', validator=attrs.validators.instance_of(str))",
        ),
        "the options class Options of 'kafka' must be frozen: @attrs.frozen",
    ),
    "an option without a type": (
        brokers(broker(options="Options"), head="@attrs.frozen\nclass Options:\n    url = attrs.field(default='')"),
        "the option 'url' of 'kafka' has no type",
    ),
    "an option of an unknown type": (
        brokers(broker(options="Options"), head="@attrs.frozen\nclass Options:\n    url: 'Url' = None"),
        "the types of the options class Options of 'kafka' can't be read: name 'Url' is not defined",
    ),
    "a spec with a set in it": (
        brokers(broker(capabilities="{Capability.ACK}")),
        (
            "in the spec of 'kafka' capabilities must be frozenset[boost_core.contracts.capability.Capability], "
            "not {{<Capability.ACK: 'ack'>}}"
        ),
    ),
    "capabilities in words": (
        brokers(broker(capabilities="frozenset(['ack'])")),
        (
            "in the spec of 'kafka' capabilities must be frozenset[boost_core.contracts.capability.Capability], "
            "not frozenset({{'ack'}})"
        ),
    ),
    "no limits": (brokers(broker(limits="None")), "in the spec of 'kafka' limits must be Limits, not None"),
    "a summary that is no text": (brokers(broker(summary="7")), "in the spec of 'kafka' summary must be str, not 7"),
    "an option of a type that is no Python": (
        brokers(broker(options="Options"), head="@attrs.frozen\nclass Options:\n    url: 'list[' = None"),
        (
            "the types of the options class Options of 'kafka' can't be read: "
            "Forward reference must be an expression -- got 'list['"
        ),
    ),
    "an option of a type that a module lacks": (
        brokers(
            broker(options="Options"), head="import enum\n@attrs.frozen\nclass Options:\n    url: 'enum.Nope' = None"
        ),
        "the types of the options class Options of 'kafka' can't be read: module 'enum' has no attribute 'Nope'",
    ),
    "a hook that exits": (brokers("exit(3)"), "its hook boost_brokers raised SystemExit: 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plugin_that_hands_over_something_wrong_is_broken(site: Site, fault: str) -> None:
    """The error names the distribution, its version and what is wrong; ``status`` says the same and doesn't raise."""
    text, problem = FAULTS[fault]
    package = site.install("acme-kafka", text=text)
    registry = site.registry()

    said = problem.format(module=f"{package}.plugin")
    assert error_of(registry) == f"PluginBroken: broker 'kafka' (acme-kafka 1.4.0) can't be used.\n  {said}"
    (row,) = registry.status()
    assert row.status == f"broken: {said}"


def test_what_cant_even_be_looked_at_leaves_the_list_of_plugins_whole(site: Site) -> None:
    """``status`` doesn't raise, whatever the code of what a hook returns does; other plugins are listed beside it."""
    site.install("acme-good", text=brokers(broker("good")), points=["brokers:good"])
    site.install("acme-odd", text=brokers("Odd()", head="class Odd:\n    def __repr__(self): exit('no')"))

    assert [(row.name, row.status) for row in site.registry().status()] == [
        ("good", "ok"),
        ("kafka", "broken: SystemExit: no"),
    ]


def test_limits_with_numbers_that_are_none_are_broken(site: Site) -> None:
    """What a spec holds is looked into: its limits, and each of its guarantees."""
    site.install("acme-kafka", text=brokers(broker(limits="Limits(lease='10s')")))
    lossy = "(Guarantee(worker_killed='', all_killed='', power_cut=None),)"
    site.install("acme-redis", text=brokers(broker("redis", guarantees=lossy)), points=["brokers:redis"])

    for name in ("kafka", "redis"):
        assert f"\n  in the spec of {name!r} " in error_of(site.registry(), name)


def test_a_hook_that_doesnt_exist_is_named(site: Site) -> None:
    """A misspelt hook or argument is found when the plugin is loaded, not silently never called."""
    site.install("acme-kafka", text=brokers(broker()) + "@hookimpl\ndef boost_worker_redy(worker): pass\n")

    text = error_of(site.registry())

    assert text.startswith("PluginBroken: broker 'kafka' (acme-kafka 1.4.0) can't be used.\n  PluginValidationError")
    assert "boost_worker_redy" in text


def test_code_that_doesnt_import_is_the_plugins_fault(site: Site) -> None:
    """The factory of a spec is imported at first use; what fails then names the distribution."""
    site.install("acme-kafka", text=brokers(broker(factory='"absent_client:Broker"')))
    registry = site.registry()
    spec = registry.broker("kafka")

    with pytest.raises(PluginBroken) as caught:
        registry.load(spec)

    assert str(caught.value) == (
        "broker 'kafka' (acme-kafka 1.4.0) can't be used.\n  ModuleNotFoundError: No module named 'absent_client'"
    )


def test_debris_of_an_installer_harms_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Distributions without metadata, or with entry points that can't be read, are passed over; the latter is said."""
    (site.folder / "empty-1.0.dist-info").mkdir()
    site.install("garbled", "2.0")
    (site.folder / "garbled-2.0.dist-info" / "entry_points.txt").write_text("[boost.brokers]\nno value\n")
    site.install("acme-kafka", text=brokers(broker()))
    (site.folder / "acme_kafka-1.4.0.dist-info" / "METADATA").write_text("Name: acme-kafka\n")

    (entry,) = scan([str(site.folder)])

    assert (entry.distribution, entry.version) == ("acme-kafka", "unknown")
    (record,) = caplog.records
    assert record.getMessage().startswith("garbled 2.0 is passed over: its entry points can't be read: ")


# --- two providers, other versions ---------------------------------------------------------------------------


def test_two_providers_of_one_name_are_an_error_with_both(site: Site) -> None:
    """Distributions, versions, folders and the fix; this project's own stands first, whatever was found first."""
    theirs = site.install("acme-boost-kafka", "0.3.1", text=brokers(broker(summary="'theirs'")))
    ours = site.install("boost-broker-kafka", text=brokers(broker(summary="'ours'")))
    registry = site.registry()

    assert error_of(registry) == (
        "PluginConflict: two plugins provide the broker 'kafka':\n"
        f"  boost-broker-kafka 1.4.0   ({site.folder / ours})\n"
        f"  acme-boost-kafka 0.3.1     ({site.folder / theirs})\n"
        '  Uninstall one, or say which: broker="kafka@acme-boost-kafka"'
    )
    assert registry.broker("kafka@acme-boost-kafka").summary == "theirs"
    assert registry.broker("kafka@Boost_Broker.Kafka").summary == "ours"
    assert site.registry(["acme_boost_kafka"]).broker("kafka").summary == "ours"
    assert error_of(registry, "kafka@acme-bost-kafka") == (
        "BrokerNotFound: no broker named 'kafka@acme-bost-kafka' is installed. Did you mean 'kafka@acme-boost-kafka'?"
    )


def test_two_providers_of_a_control_can_only_be_uninstalled_or_disabled(site: Site) -> None:
    """Nothing chooses a control by name, so the fix is another one."""
    folders = [site.folder / site.install(f"acme-{n}", points=["controls:rate"]) for n in "ab"]

    assert error_of(site.registry(), "rate", "control") == (
        "PluginConflict: two plugins provide the control 'rate':\n"
        f"  acme-a 1.4.0   ({folders[0]})\n"
        f"  acme-b 1.4.0   ({folders[1]})\n"
        "  Uninstall one, or disable one: BOOST_DISABLE=acme-b"
    )


def test_a_distribution_found_twice_counts_once(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first one on the path shadows others of its name, as it does for imports, however the name is spelt."""
    site.install("acme-kafka", "2.0")
    other = Site(tmp_path_factory.mktemp("other"))
    other.install("Acme_Kafka", "1.0")

    found = scan([str(site.folder), str(other.folder)])

    assert [(entry.distribution, entry.version) for entry in found] == [("acme-kafka", "2.0")]


@pytest.mark.parametrize(
    ("api", "text"),
    [
        (2, "Upgrade boost-core, or install acme-boost-kafka<0.3."),
        (0, f"Upgrade acme-boost-kafka, or install boost-core<{SHORT}."),
    ],
)
def test_a_plugin_of_another_api_is_refused(site: Site, api: int, text: str) -> None:
    """The versions of both, and which of them to change."""
    site.install("acme-boost-kafka", "0.3.1", text=brokers(broker(api=str(api))))

    assert error_of(site.registry()) == (
        f"PluginIncompatible: acme-boost-kafka 0.3.1 is written for plugin API {api};"
        f" boost-core {SHORT} speaks API 1.\n  {text}"
    )
    (row,) = site.registry().status()
    assert (row.api, row.status) == (api, f"incompatible: {text}")
