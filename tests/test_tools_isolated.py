"""tools/check_isolated.py: which faults of packages it finds, and that ours have none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from repository import Repository

pytestmark = pytest.mark.timeout(300)

PROJECT = """\
[build-system]
requires = ["uv_build"]
build-backend = "uv_build"

[project]
name = "boost-broker-NAME"
version = "0.1.0"
dependencies = DEPENDENCIES

[project.entry-points."boost.brokers"]
NAME = "boost_broker_NAME.plugin"
"""
GOOD = "import attrs\nimport boost_core.plugin\n"
TEST = '''
"""Where the package under test comes from."""
import sysconfig
import boost_broker_NAME.plugin
def test_the_wheel_is_tested():
    """It is installed."""
    assert boost_broker_NAME.plugin.__file__.startswith(sysconfig.get_path("purelib"))
'''


def plant(
    repository: Repository,
    name: str,
    *,
    plugin: str = GOOD,
    broker: str = "",
    test: str | None = TEST,
    dependencies: str = '["attrs", "boost-core"]',
) -> None:
    """Add a package to a repository, in order unless told otherwise."""
    folder, source = f"plugins/broker-{name}", f"plugins/broker-{name}/src/boost_broker_{name}"
    project = PROJECT.replace("DEPENDENCIES", dependencies)
    files = {f"{folder}/pyproject.toml": project, f"{source}/__init__.py": "", f"{source}/plugin.py": plugin}
    files |= {f"{source}/broker.py": broker, **({f"{folder}/tests/test_it.py": test} if test else {})}
    for path, text in files.items():
        repository.write(path, text.replace("NAME", name))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return what the tool says of each planted package, in one run."""
    repository = Repository(tmp_path_factory.mktemp("repository"), plugins=False)
    plant(repository, "good")
    plant(repository, "needy", plugin=GOOD + "import packaging\n")
    plant(repository, "coreless", dependencies='["attrs"]')
    plant(repository, "heavy", plugin=GOOD + "import sqlite3\n")
    lazy = "import pluggy\ndef connect():\n    import acme_client.aio\n"
    plant(repository, "lazy", dependencies='["boost-core"]', broker=lazy)
    plant(repository, "broken", broker="import boost_broker_broken.left_out\n")
    plant(repository, "warning", plugin=GOOD + 'PATTERN = "\\d"\n')
    plant(repository, "failing", test='def test_it():\n    """It fails."""\n    assert 1 == 2\n')
    plant(
        repository,
        "skipping",
        test='import pytest\ndef test_it():\n    """It skips."""\n    pytest.skip("not today")\n',
    )
    plant(repository, "untested", test=None)
    plant(repository, "empty", test='"""No test."""\n')
    names = sorted(path.name for path in (repository.folder / "plugins").iterdir())

    done = repository.tool("check_isolated.py", *(f"boost-{name}" for name in names))

    assert done.returncode == 1, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(said) == [f"boost-{name}" for name in names]
    return {name.removeprefix("boost-broker-"): line for name, line in said.items()}


def test_a_good_package_passes_with_its_own_tests(lines: Mapping[str, str]) -> None:
    """Its tests run against what its wheel installed, and their count is shown."""
    assert lines["good"].startswith("ok, 1 passed in ")


@pytest.mark.parametrize(("name", "missing"), [("needy", "packaging"), ("coreless", "boost_core")])
def test_a_dependency_that_isnt_declared_is_missing(lines: Mapping[str, str], name: str, missing: str) -> None:
    """What the metadata doesn't name isn't there, though this environment has it; pytest's own needs don't count."""
    assert lines[name] == (
        f"FAILED, python -W error -c 'import boost_broker_{name}.plugin': "
        f"ModuleNotFoundError: No module named '{missing}'"
    )


def test_a_dependency_that_another_brings_must_be_declared_too(lines: Mapping[str, str]) -> None:
    """Imports of what core happens to bring, and imports inside functions, are found in every module."""
    assert lines["lazy"] == (
        "FAILED, boost_broker_lazy.broker imports acme_client, which boost-broker-lazy doesn't declare; "
        "boost_broker_lazy.broker imports pluggy, which boost-broker-lazy doesn't declare; "
        "boost_broker_lazy.plugin imports attrs, which boost-broker-lazy doesn't declare"
    )


def test_a_plugin_module_that_loads_a_client_is_found(lines: Mapping[str, str]) -> None:
    """plugin.py is imported to look at specs; the client waits for the first use."""
    assert lines["heavy"] == (
        "FAILED, boost_broker_heavy.plugin loads sqlite3; leave that to the module that the spec's factory names"
    )


def test_a_module_that_the_wheel_lacks_is_found(lines: Mapping[str, str]) -> None:
    """Every module of the package is imported, not only the plugin's."""
    assert lines["broken"] == (
        "FAILED, boost_broker_broken.broker doesn't import: "
        "ModuleNotFoundError: No module named 'boost_broker_broken.left_out'"
    )


def test_a_warning_at_import_is_an_error(lines: Mapping[str, str]) -> None:
    """Also one that Python gives only when it compiles the module."""
    assert lines["warning"].startswith("FAILED, python -W error -c 'import boost_broker_warning.plugin': SyntaxError: ")


def test_failing_tests_are_named(lines: Mapping[str, str]) -> None:
    """One line says how many failed, and the first of them."""
    counts, _, first = lines["failing"].partition(": ")

    assert counts.startswith("FAILED, 1 failed in ")
    assert first.startswith("FAILED tests/test_it.py::test_it")


def test_a_skipped_test_fails(lines: Mapping[str, str]) -> None:
    """The rules of the repository for its tests hold here too."""
    assert lines["skipping"].startswith("FAILED, 1 failed in ")


def test_a_package_without_tests_fails(lines: Mapping[str, str]) -> None:
    """Neither a missing folder nor one without any test passes for tested."""
    assert lines["untested"] == "FAILED, it has no tests"
    assert lines["empty"].startswith("FAILED, no tests ran in ")


def test_a_package_that_doesnt_build_stops_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is installed then, for what others need of it would come from an index."""
    repository = Repository(tmp_path_factory.mktemp("unbuilt"), plugins=False)
    plant(repository, "good")
    (repository.folder / "core/src/boost_core/__init__.py").unlink()

    done = repository.tool("check_isolated.py")

    assert done.returncode == 1
    assert done.stdout.startswith("boost-core: FAILED, no wheel: ")
    assert len(done.stdout.splitlines()) == 1


def test_an_unknown_package_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The known ones are listed."""
    done = Repository(tmp_path_factory.mktemp("core"), plugins=False).tool("check_isolated.py", "boost-corre")

    assert done.returncode == 2
    assert done.stderr == "No package boost-corre here. Packages: boost-core\n"


def test_our_own_packages_stand_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Core and those without a server, installed from the wheel with what it declares, pass their own tests.

    Those with servers are left to ``make isolated``: their tests take minutes, and have just been run.
    """
    names = ["boost-core", "boost-broker-sqlite", "boost-control-expiry", "boost-store-sqlite"]

    done = Repository(tmp_path_factory.mktemp("ours")).tool("check_isolated.py", *names)

    assert [line.partition(", ")[0] for line in done.stdout.splitlines()] == [f"{name}: ok" for name in names], (
        done.stdout + done.stderr
    )
    assert done.returncode == 0
