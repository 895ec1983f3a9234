"""Exit codes of the command, each with the exact text that explains it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import attrs
import pytest
from boost_core import __version__
from boost_core.registry.registry import Registry
from projects import BOOST, NOTING, Project, eventually
from situations import SITUATIONS, absent, absent_option, install

TASKS = """
from boost_core import boost

@boost("echo", results=True)
def echo(a, b: int = 1):
    return [a, b]

@boost("mute")
def mute(): ...
"""


@attrs.frozen
class Row:
    """A command, the situation it finds, how it ends, and what it says on stderr: ``{db}`` stands for a path."""

    code: int
    command: str
    situation: str = "a task file"
    text: str = ""


REMEDY = (
    "\n  Name a place that can be written on a local disk: BOOST_SQLITE_PATH=/path/to/file.db, or the option path.\n"
)
ROWS = [
    Row(0, "--version"),
    Row(0, "plugins"),
    Row(0, "call tasks.py mute"),
    Row(0, "queue show never-heard-of", text="there is no queue 'never-heard-of' yet\n"),
    Row(0, "dead list"),
    Row(
        0,
        "queue list",
        "a plugin that fails",
        "PluginBroken: plugin 'burning' (burning-boost 1.2.3) can't be used.\n"
        "  its hook boost_commands raised RuntimeError: on fire\n",
    ),
    Row(1, "dead show 1f", text="Error: no dead letter has an id that starts with '1f'\n"),
    Row(2, "frob tasks.py", text="Error: No such command 'frob'.\n"),
    Row(2, "call tasks.py", text="Error: Missing argument 'TASK'.\n"),
    Row(2, "call tasks.py echo", text="Error: echo() missing a required argument: 'a'\n"),
    Row(2, "call tasks.py echo 1 2 3", text="Error: echo() too many positional arguments\n"),
    Row(
        2,
        "call tasks.py echo 1 --wait soon",
        text="Error: Invalid value for '--wait': 'soon' is no duration; give seconds or text such as '250ms', '1.5s' or '1h30m'\n",
    ),
    Row(
        2,
        "worker tasks.py --drain-timeout -1",
        text="Error: Invalid value for '--drain-timeout': '-1' is no duration of 0 seconds or more\n",
    ),
    Row(
        2,
        "worker tasks.py --concurrency 0",
        text="Error: Invalid value for '--concurrency': 0 is not in the range x>=1.\n",
    ),
    Row(
        2,
        "queue show echo.dead",
        text="BadName: argument name 'echo.dead' ends with '.dead', which is kept for dead letters; choose another.\n",
    ),
    Row(
        2,
        f"dead list {'x' * 300}",
        text=f"BadName: argument name '{'x' * 57}...' is 300 characters long; at most 180 are allowed.\n",
    ),
    Row(
        3,
        "worker",
        text="TargetError: target '': give a module, module:app or the path of a .py file (or set BOOST_APP)\n",
    ),
    Row(3, "worker nowhere.py", text="TargetError: target 'nowhere.py': there is no file 'nowhere.py'\n"),
    Row(
        3,
        "worker tasks.py",
        "a file that doesn't parse",
        "TargetError: target 'tasks.py': it doesn't parse:\n"
        '  File "{tasks}", line 2\n    def f(:\nSyntaxError: invalid syntax\n',
    ),
    Row(
        3,
        "call tasks.py f",
        "a file that fails",
        "TargetError: target 'tasks.py': it doesn't import:\n"
        '  File "{tasks}", line 2, in <module>\n    print(x.y)\n'
        "AttributeError: 'int' object has no attribute 'y'\n",
    ),
    Row(
        3,
        "explain tasks.py",
        "a file that exits",
        "TargetError: target 'tasks.py': it doesn't import:\n"
        "  File \"{tasks}\", line 2, in <module>\n    sys.exit('no configuration')\nSystemExit: no configuration\n",
    ),
    Row(
        4,
        "worker tasks.py --burst",
        "a read-only database",
        "BrokerUnavailable: broker 'sqlite': {db} is read-only" + REMEDY,
    ),
    Row(
        4,
        "call tasks.py echo 1",
        "a read-only folder",
        "BrokerUnavailable: broker 'sqlite': {db} can't be used: its folder is read-only" + REMEDY,
    ),
    Row(
        4,
        "worker tasks.py --burst",
        "a newer database",
        "BrokerUnavailable: broker 'sqlite': {db} has schema version 9; this boost-broker-sqlite knows versions up to 1\n"
        "  Upgrade the package: pip install --upgrade boost-broker-sqlite\n",
    ),
    Row(
        4,
        "dead list",
        "a newer database",
        "BrokerUnavailable: broker 'sqlite': {db} has schema version 9; this boost-broker-sqlite knows versions up to 1\n"
        "  Upgrade the package: pip install --upgrade boost-broker-sqlite\n",
    ),
    Row(
        4,
        "queue list",
        "somebody else's database",
        "BrokerUnavailable: broker 'sqlite': {db} is the database of another program" + REMEDY,
    ),
    Row(
        4,
        "queue list",
        "no database",
        "BrokerUnavailable: broker 'sqlite': {db} is not an SQLite database\n  Move that file away, or name another one.\n",
    ),
    Row(
        4,
        "call tasks.py echo 1 --wait 1s",
        "a read-only store",
        "StoreUnavailable: store 'sqlite': {results} is read-only" + REMEDY,
    ),
    Row(
        5,
        "worker tasks.py",
        "a broker that isn't installed",
        "BrokerNotFound: no broker named '{absent[0]}' is installed.\n"
        "  Install it:        pip install {absent[1]}\n  Installed brokers: {brokers}\n",
    ),
    Row(
        5,
        "call tasks.py echo 1",
        "a misspelt broker",
        "BrokerNotFound: no broker named 'sqlit' is installed. Did you mean 'sqlite'?\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "a broken broker",
        "PluginBroken: broker 'acme' (acme-boost 1.2.3) can't be used.\n"
        "  ModuleNotFoundError: No module named 'absent_client'\n"
        "  acme-boost 1.2.3 requires absent-client>=2.6, which is not installed.\n",
    ),
    Row(
        5,
        "call tasks.py echo 1",
        "a broker of another api",
        "PluginIncompatible: acme-boost 1.2.3 is written for plugin API 2; boost-core {core} speaks API 1.\n"
        "  Upgrade boost-core, or install acme-boost<1.2.\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "two brokers of a name",
        "PluginConflict: two plugins provide the broker 'acme':\n"
        "  acme-boost 1.2.3   ({folder}/acme_boost.py)\n  zeta-boost 1.2.3   ({folder}/zeta_boost.py)\n"
        '  Uninstall one, or say which: broker="acme@zeta-boost"\n',
    ),
    Row(
        5,
        "worker tasks.py",
        "an option that doesn't exist",
        "BadOption: broker 'sqlite' has no option 'leases'. Did you mean 'lease'?\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "an option that can't be",
        "BadOption: broker 'sqlite': option lease='soon' can't be used:"
        " 'soon' is no duration; give seconds or text such as '250ms', '1.5s' or '1h30m'\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "an app that can't be",
        "BadOption: the app: option drain_timeout='soon' can't be used:"
        " 'soon' is no duration; give seconds or text such as '250ms', '1.5s' or '1h30m'\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "a misspelt task option",
        "BadOption: a task has no option 'retrys'. Did you mean 'retries'?\n",
    ),
    Row(
        5,
        "call tasks.py f",
        "an option of a package",
        "BadOption: '{option[0]}' is an option of the control '{option[1]}', which is not installed.\n"
        "  Install it:        pip install {option[2]}\n",
    ),
    Row(
        5,
        "worker tasks.py",
        "a misspelt pool",
        "PoolNotFound: no pool named 'thread' is installed. Did you mean 'threads'?\n",
    ),
    Row(
        5,
        "worker tasks.py --pool nonsense",
        text="PoolNotFound: no pool named 'nonsense' is installed.\n  Installed pools: {pools}\n",
    ),
    Row(5, "call tasks.py ehco", text="TaskUnknown: no task named 'ehco' is declared. Did you mean 'echo'?\n"),
    Row(
        5,
        "call tasks.py echo 1e999",
        text="BadArgument: task 'echo', argument 'a': value is inf, a number that JSON doesn't have;"
        " give None or text instead.\n",
    ),
    Row(
        5,
        "call tasks.py echo 1 two",
        text="BadArgument: task 'echo', argument 'b': value doesn't fit its annotation: Expected `int`, got `str`.\n",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}-{row.command}-{row.situation}")
def test_a_command_ends_as_the_table_says(project: Project, row: Row) -> None:
    """The exit code, and on stderr exactly this text: what is wrong, with which name and value, and how to mend it."""
    tasks = project.write("tasks.py", TASKS)
    SITUATIONS[row.situation](project)

    done = project.boost(*row.command.split())

    places = {
        "tasks": tasks,
        "db": project.environ["BOOST_SQLITE_PATH"],
        "results": project.folder / "results.db",
        "folder": project.folder,
        "core": ".".join(__version__.split(".")[:2]),
        "absent": absent("broker"),
        "option": absent_option(),
        "brokers": ", ".join(Registry().installed("broker")),
        "pools": ", ".join(Registry().installed("pool")),
    }
    assert (said(done.stderr), done.returncode) == (row.text.format(**places), row.code)


def said(stderr: str) -> str:
    """Return what was said, without click's reminder of the usage and the carets that differ between Pythons."""
    return re.sub(r"\AUsage: .*\nTry '.*' for help\.\n\n|^ *[\^~]+\n", "", stderr, flags=re.MULTILINE)


def test_what_nobody_expected_ends_with_1_and_its_traceback(project: Project) -> None:
    """An error that is none of boost's, as of a plugin's own command, shows where it comes from."""
    body = "    @group.command()\n    def burn():\n        raise RuntimeError('on fire')\n"
    install(project, body)

    done = project.boost("burn")

    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("in burn\n    raise RuntimeError('on fire')\nRuntimeError: on fire\n")


POLITE = (
    NOTING
    + """
@boost("polite")
def polite(seconds):
    note("started")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        current.check()
"""
)


@pytest.mark.parametrize(
    ("signals", "seconds", "drain", "code"),
    [
        ([signal.SIGTERM], 0.1, "20s", 0),
        ([signal.SIGINT], 0.1, "20s", 0),
        ([signal.SIGTERM, signal.SIGTERM], 1, "20s", 0),
        ([signal.SIGTERM], 60, "50ms", 75),
        ([signal.SIGINT], 60, "50ms", 75),
        ([signal.SIGINT, signal.SIGINT], 60, "50s", 130),
        ([signal.SIGTERM, signal.SIGINT, signal.SIGINT], 60, "50s", 130),
        ([signal.SIGQUIT], 60, "50s", 131),
    ],
    ids=lambda it: "+".join(one.name for one in it) if isinstance(it, list) else str(it),
)
def test_a_worker_ends_as_it_is_told(
    project: Project, signals: list[signal.Signals], seconds: float, drain: str, code: int
) -> None:
    """0 after a drain, 75 where it took too long, 130 and 131 by force; what didn't end is back on the queue."""
    path = project.write("polite.py", POLITE)
    project.boost("call", path, "polite", seconds)
    worker = project.worker(path, "--drain-timeout", drain)
    eventually(project.notes)

    for number, one in enumerate(signals, 1):
        worker.send_signal(one)
        if number < len(signals):
            eventually(lambda wanted=number: project.log(worker).count("draining") >= wanted)

    assert worker.wait(40) == code, project.log(worker)
    (row,) = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (row["ready"], row["running"], row["dead"]) == (0 if code == 0 else 1, 0, 0)


STUBBORN = NOTING + "@boost('stubborn')\ndef stubborn():\n    note('started')\n    time.sleep(60)\n"


@pytest.mark.parametrize("later", [signal.SIGTERM, signal.SIGQUIT], ids=lambda one: one.name)
def test_what_comes_after_sigquit_changes_nothing_of_its_code(project: Project, later: signal.Signals) -> None:
    """SIGTERM asks for less and isn't answered, a second SIGQUIT ends it at once; it is 131 either way."""
    path = project.write("stubborn.py", STUBBORN)
    project.boost("call", path, "stubborn")
    worker = project.worker(path)
    eventually(project.notes)

    worker.send_signal(signal.SIGQUIT)
    eventually(lambda: "stopping: running jobs" in project.log(worker))
    worker.send_signal(later)

    assert worker.wait(40) == 131, project.log(worker)
    assert (project.log(worker).count("stopping:"), project.log(worker).count("draining")) == (1, 0)


def test_ctrl_c_while_a_target_is_imported_is_no_fault_of_the_target(project: Project) -> None:
    """The command is aborted, with 130, wherever Ctrl-C finds it."""
    path = project.write("slow.py", NOTING + "note('importing')\ntime.sleep(60)\n")
    worker = project.worker(path)
    eventually(project.notes)

    worker.send_signal(signal.SIGINT)

    assert worker.wait(20) == 130
    assert project.log(worker).strip() == "Aborted."


def test_ctrl_c_while_a_result_is_awaited(project: Project) -> None:
    """The job stays pushed."""
    path = project.write("tasks.py", TASKS)
    call = project.start(BOOST, "call", path, "echo", "1", "--wait", "60s")
    eventually(lambda: json.loads(project.boost("queue", "list", path, "-o", "json").stdout)[0]["ready"])

    call.send_signal(signal.SIGINT)

    assert call.wait(20) == 130
    assert project.log(call).strip() == "Aborted."


def test_every_exit_code_is_explained_and_shown_here() -> None:
    """The table of the documentation has the codes above, and no other."""
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
    table = page.partition("# Exit codes\n")[2]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}

    assert told == {row.code for row in ROWS} | {0, 75, 130, 131}
