"""Settings: from where they come, which of them wins, how they are typed, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from boost_core import App
from boost_core.errors import BadOption, BoostError
from boost_core.plugin import BrokerSpec, Secret, StoreSpec, duration, option
from boost_core.settings import Settings


@attrs.frozen(kw_only=True)
class Options:
    """Options of the broker of these tests."""

    url: str = option("acme://default", help="Where it is.")
    lease: float = option(10.0, help="Seconds.", convert=duration)
    prefetch: int = option(1, help="How many.")
    password: Secret = option(Secret(""), help="Hidden.")


ACME = BrokerSpec(name="acme-mq", factory="boost_core.builtin.memory:MemoryBroker", options=Options)


def load(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **given: Any) -> Settings:
    """Return the settings of a project in a folder."""
    (folder / "pyproject.toml").write_text(toml, encoding="utf-8")
    return Settings.load(folder, environ or {}, given)


def refusal(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **given: Any) -> str:
    """Return the error that settings are refused with, as the command line shows it."""
    with pytest.raises(BoostError) as caught:
        load(folder, toml, environ, **given)
    return f"{type(caught.value).__name__}: {caught.value}"


# --- which one wins ----------------------------------------------------------------------------------------------


def test_settings_have_defaults(tmp_path: Path) -> None:
    """Where nobody says anything there is the embedded queue, threads, JSON and 25 s to drain."""
    settings = load(tmp_path)

    assert settings.describe() == [
        ("broker", "'sqlite'", "default"),
        ("store", "None", "default"),
        ("pool", "'threads'", "default"),
        ("codec", "'json'", "default"),
        ("namespace", "''", "default"),
        ("disable", "()", "default"),
        ("app", "None", "default"),
        ("drain_timeout", "25.0", "default"),
    ]


def test_code_goes_before_environment_before_project_before_default(tmp_path: Path) -> None:
    """Each place overrides those before it, name by name, and is named as the origin."""
    toml = "[tool.boost]\nbroker = 'one'\nstore = 'one'\npool = 'one'\n"

    settings = load(tmp_path, toml, {"BOOST_BROKER": "two", "BOOST_STORE": "two"}, broker="three")

    origins = {name: (value, origin) for name, value, origin in settings.describe()}
    assert origins["broker"] == ("'three'", "App(broker=...)")
    assert origins["store"] == ("'two'", "environment BOOST_STORE")
    assert origins["pool"] == ("'one'", f"{tmp_path / 'pyproject.toml'} [tool.boost]")
    assert origins["codec"] == ("'json'", "default")
    assert [settings.get(name) for name in ("broker", "store", "pool", "codec")] == ["three", "two", "one", "json"]


def test_options_of_a_plugin_follow_the_same_order(tmp_path: Path) -> None:
    """Tables of the project, then variables below the plugin's name, then what code gives, option by option."""
    toml = (
        "[tool.boost.brokers.acme-mq]\nurl = 'acme://one'\nlease = '1m'\nprefetch = 3\n"
        "[tool.boost.stores.acme-mq]\nurl = 'of the store'\n"
    )
    environ = {
        "BOOST_BROKER_ACME_MQ__URL": "acme://two",
        "BOOST_BROKER_ACME_MQ__PREFETCH": "4",
        "BOOST_STORE_ACME_MQ__LEASE": "9",
        "BOOST_BROKER_OTHER__NONSENSE": "whatever",
    }
    settings = load(tmp_path, toml, environ)

    assert settings.plugin_options(ACME) == Options(url="acme://two", lease=60.0, prefetch=4)
    assert settings.plugin_options(ACME, {"url": "acme://three"}).url == "acme://three"
    store = StoreSpec(name="acme-mq", factory="nowhere:Store", options=Options)
    assert settings.plugin_options(store) == Options(url="of the store", lease=9.0)
    assert load(tmp_path).plugin_options(ACME) == Options()


def test_task_options_go_default_project_app_decorator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other keys of [tool.boost] and App(...) are defaults of task options; zero given is zero, not unset."""
    (tmp_path / "pyproject.toml").write_text("[tool.boost]\nretries = 5\nretry_delay = '2s'\npriority = 1\n")
    monkeypatch.chdir(tmp_path)
    app = App("test", broker="memory", priority=2)

    plain = app.boost("plain")(lambda: None).plan
    decorated = app.boost("decorated", retries=0, priority=3)(lambda: None).plan

    assert [plain.values[name] for name in ("retries", "priority")] == [5, 2]
    assert plain.origins["retries"] == f"{tmp_path / 'pyproject.toml'} [tool.boost]"
    assert plain.origins["priority"] == "App(priority=...)"
    assert [decorated.values[name] for name in ("retries", "priority")] == [0, 3]
    assert decorated.origins["retries"].startswith(f"@boost at {Path(__file__).resolve()}:")


def test_the_nearest_project_counts(tmp_path: Path) -> None:
    """The file is looked for upwards from where the process stands; the first one found is the project's."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.boost]\nnamespace = 'outer'\n")

    assert Settings.load(deep, {}, {}).get("namespace") == "outer"

    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'inner'\n")

    assert Settings.load(deep, {}, {}).get("namespace") == ""
    assert Settings.load(None, {}, {}).get("namespace") == ""


def test_an_app_reads_its_settings_at_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an app and declaring tasks reads nothing; after the first use changes change nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOST_NAMESPACE", "early")
    app = App("test", broker="memory")
    task = app.boost("orders")(lambda: None)

    monkeypatch.setenv("BOOST_NAMESPACE", "late")
    assert task.plan.queue == "late.orders"

    monkeypatch.setenv("BOOST_NAMESPACE", "later")
    assert app.boost("bills")(lambda: None).plan.queue == "late.bills"


def test_two_apps_of_one_broker_kind_have_options_of_their_own() -> None:
    """Two brokers of one kind in one process don't share messages."""
    apps = [App(name, broker="memory", store="memory") for name in ("one", "two")]
    tasks = [app.boost("job")(lambda: None) for app in apps]

    tasks[0].push()

    assert [task.depth().ready for task in tasks] == [1, 0]


# --- types -------------------------------------------------------------------------------------------------------


def test_text_from_the_environment_is_typed(tmp_path: Path) -> None:
    """Durations, lists by commas, and names are understood."""
    settings = load(tmp_path, "", {"BOOST_DRAIN_TIMEOUT": "1m30s", "BOOST_DISABLE": " kafka, acme-boost ,,"})

    assert settings.get("drain_timeout") == 90.0
    assert settings.get("disable") == ("kafka", "acme-boost")
    assert load(tmp_path, "[tool.boost]\ndisable = ['kafka', 'redis']\n").get("disable") == ("kafka", "redis")


def test_other_variables_belong_to_others(tmp_path: Path) -> None:
    """Names that merely begin with BOOST_ are ignored: BOOST_ROOT is a C++ library's."""
    environ = {"BOOST_ROOT": "/opt", "BOOST_RETRIES": "x", "BOOST_BROKER_X": "1", "BOOST_": "", "BOOST_X__Y": "1"}

    assert load(tmp_path, "", environ).describe() == load(tmp_path).describe()


@pytest.mark.parametrize(
    ("toml", "environ", "given", "text"),
    [
        ("", {}, {"pool": 3}, "BadOption: the app: option pool=3 can't be used: Expected `str`, got `int`"),
        (
            "",
            {"BOOST_DRAIN_TIMEOUT": "soon"},
            {},
            (
                "BadOption: the app: option drain_timeout='soon' can't be used: 'soon' is no duration; "
                "give seconds or text such as '250ms', '1.5s' or '1h30m'"
            ),
        ),
        (
            "",
            {},
            {"drain_timeout": None},
            "BadOption: the app: option drain_timeout=None can't be used: it must not be None",
        ),
        (
            "[tool.boost]\ndisable = 7",
            {},
            {},
            "BadOption: the app: option disable=7 can't be used: 'int' object is not iterable",
        ),
        (
            "[tool.boost]\nnamespace = 'a b'",
            {},
            {},
            "BadName: namespace name 'a b' can't be used; give up to 32 characters of A-Z, a-z, 0-9, _ and -.",
        ),
        (
            "[tool]\nboost = 'sqlite'",
            {},
            {},
            "BadOption: {file} [tool.boost] must be a table of options, not 'sqlite'.",
        ),
        ("tool = 3", {}, {}, "BadOption: {file} [tool] must be a table of options, not 3."),
        (
            "[tool.boost]\nbrokers = 'x://u:hunter2@h'",
            {},
            {},
            "BadOption: {file} [tool.boost.brokers] must be a table of options, not 'x://u:***@h'.",
        ),
        (
            "[tool.boost.brokers]\nredis = 'x'",
            {},
            {},
            "BadOption: {file} [tool.boost.brokers.redis] must be a table of options, not 'x'.",
        ),
    ],
)
def test_values_that_cant_be_used_are_refused(
    tmp_path: Path, toml: str, environ: dict[str, str], given: dict[str, Any], text: str
) -> None:
    """The error names the option or the table of the file, the value and the reason."""
    assert refusal(tmp_path, toml, environ, **given) == text.format(file=tmp_path / "pyproject.toml")


@pytest.mark.parametrize("content", [b"[tool.boost\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_doesnt_parse_is_named(tmp_path: Path, content: bytes) -> None:
    """The error says which file, what is wrong in it, and what to do."""
    file = tmp_path / "pyproject.toml"
    file.write_bytes(content)

    with pytest.raises(BadOption) as caught:
        Settings.load(tmp_path, {}, {})

    assert str(caught.value).startswith(f"{file} can't be read: ")
    assert str(caught.value).endswith("\n  Mend the file, or work in another folder.")


@pytest.mark.parametrize(
    ("toml", "environ"),
    [("[tool.boost.brokers.acme-mq]\nprefech = 3\n", {}), ("", {"BOOST_BROKER_ACME_MQ__PREFECH": "3"})],
)
def test_unknown_options_of_a_plugin_are_refused(tmp_path: Path, toml: str, environ: dict[str, str]) -> None:
    """In the file and below the plugin's own variables a misspelt name is an error with a guess."""
    settings = load(tmp_path, toml, environ)

    with pytest.raises(BadOption) as caught:
        settings.plugin_options(ACME)

    assert str(caught.value) == "broker 'acme-mq' has no option 'prefech'. Did you mean 'prefetch'?"


def test_an_unknown_key_of_the_project_or_the_app_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither a setting nor a task option is an error at the first use of any task."""
    (tmp_path / "pyproject.toml").write_text("[tool.boost]\nretrys = 3\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(BadOption) as caught:
        App("test", broker="memory").boost("job")(lambda: None).push()

    assert str(caught.value) == "a task has no option 'retrys'. Did you mean 'retries'?"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("brokers.sqlit", "there is no broker 'sqlit'. Did you mean 'sqlite'?"),
        ("stores.memry", "there is no store 'memry'. Did you mean 'memory'?"),
        (
            "controls.zzz",
            "there is no control 'zzz'.\n  Install the package that brings it, or take the table out.",
        ),
    ],
)
def test_a_table_of_a_plugin_that_nobody_knows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, text: str
) -> None:
    """A misspelt table would be read by nobody, and jobs go to the default place: an error at the first use."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.boost.{table}]\npath = 'mine.db'\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(BadOption) as caught:
        App("test", broker="memory").boost("job")(lambda: None).push()

    assert str(caught.value) == f"{tmp_path / 'pyproject.toml'} [tool.boost.{table}]: {text}"


def test_tables_of_plugins_that_there_are_may_stand_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project has tables for what only some of its machines install or enable, and for specs that its code gives."""
    tables = ("brokers.kafka", "brokers.rabbitmq_stream", "stores.memory", "brokers.acme-mq", "brokers.other-mq")
    (tmp_path / "pyproject.toml").write_text("".join(f"[tool.boost.{table}]\nprefetch = 3\n" for table in tables))
    monkeypatch.chdir(tmp_path)
    app = App("test", broker=ACME, disable=["memory"])
    other = attrs.evolve(ACME, name="other-mq")

    tasks = [app.boost("one")(lambda: None), app.boost("two", broker=other)(lambda: None)]

    assert [task.plan.broker_options.prefetch for task in tasks] == [3, 3]


# --- secrets -----------------------------------------------------------------------------------------------------


def test_secrets_dont_show_in_settings(tmp_path: Path) -> None:
    """Passwords in URLs, in options by name, and secret options are masked in everything that is shown."""
    environ = {"BOOST_BROKER": "redis://u:hunter2@h/0", "BOOST_BROKER_ACME_MQ__PASSWORD": "hunter2"}
    settings = load(
        tmp_path,
        "",
        environ,
        store="redis://:hunter2@h",
        broker_options={"password": "hunter2", "url": "x://u:hunter2@h"},
    )

    shown = settings.describe()
    options = settings.plugin_options(ACME)

    assert ("broker", "'redis://u:***@h/0'", "environment BOOST_BROKER") in shown
    assert ("broker_options", "{'password': '***', 'url': 'x://u:***@h'}", "App(broker_options=...)") in shown
    assert "hunter2" not in f"{shown} {options}"
    assert options.password.reveal() == "hunter2"
