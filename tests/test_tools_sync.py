"""tools/sync_packages.py: what is out of step is found, said, and mended."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from repository import ROOT, Repository

MEND = "Mend it: python tools/sync_packages.py\n"
NAME = "plugins/store-sqlite/README.md"
HEADINGS = "Install, Example, Options, Capabilities and limits, How it works, Dependencies"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a copy of this repository."""
    return Repository(tmp_path)


def texts(repository: Repository) -> dict[Path, str]:
    """Return all files of a repository."""
    paths = [path for path in repository.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path: path.read_text(encoding="utf-8") for path in paths}


def test_what_is_in_step_is_left_alone(repository: Repository) -> None:
    """Nothing is said and nothing written, by the check and without it."""
    before = texts(repository)

    for arguments in (["--check"], []):
        done = repository.tool("sync_packages.py", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert texts(repository) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("plugins/store-sqlite/pyproject.toml", '\nversion = "', '\nversion = "9'),
        ("plugins/store-sqlite/pyproject.toml", 'requires-python = ">=3.11"', 'requires-python = ">=3.9"'),
        ("plugins/store-sqlite/pyproject.toml", 'license = "MIT"', 'license = "ISC"'),
        ("plugins/store-sqlite/pyproject.toml", '"boost-core>=', '"boost-core>=9'),
        ("plugins/store-sqlite/pyproject.toml", 'requires = ["uv_build', 'requires = ["hatchling", "uv_build'),
        ("core/src/boost_core/__init__.py", '__version__ = "', '__version__ = "9'),
        ("core/src/boost_core/registry/hints.py", '("store", "sqlite"): "boost-store-sqlite"', '("store", "lost"): ""'),
        ("core/src/boost_core/registry/hints.py", '"max_age": ("expiry",', '"max_ages": ("expiry",'),
        ("plugins/broker-sqlite/README.md", "| `lease` | 10 s |", "| `lease` | 20 s |"),
        ("plugins/broker-sqlite/README.md", "| Lease | 10 s |", "| Lease | 20 s |"),
        ("README.md", "| `sqlite` | as published |", "| `sqlite` | by chance |"),
        ("README.md", "    resize.wait_idle()\n", ""),
        ("docs/errors.md", "## bad-option\n", "## bad-opinion\n"),
    ],
)
def test_a_stale_text_is_found_and_mended(repository: Repository, name: str, old: str, new: str) -> None:
    """The check names the file, says how to mend it and writes nothing; the tool itself makes it as it was."""
    before = texts(repository)
    repository.change(name, old, new)
    stale = texts(repository)

    checked = repository.tool("sync_packages.py", "--check")
    assert (checked.returncode, checked.stdout) == (1, f"{name}: out of step\n{MEND}"), checked.stderr
    assert texts(repository) == stale

    written = repository.tool("sync_packages.py")
    assert (written.returncode, written.stdout) == (0, f"{name}: written\n"), written.stderr
    assert texts(repository) == before


def test_what_is_missing_beside_a_package_is_made(repository: Repository) -> None:
    """The licence is a link to the one text, and the mark for type checkers is there."""
    licence, typed = "plugins/store-sqlite/LICENSE", "plugins/store-sqlite/src/boost_store_sqlite/py.typed"
    (repository.folder / licence).unlink()
    repository.write(licence, "Another licence\n")
    (repository.folder / typed).unlink()

    checked = repository.tool("sync_packages.py", "--check")
    written = repository.tool("sync_packages.py")

    assert checked.stdout == f"{licence}: out of step\n{typed}: out of step\n{MEND}"
    assert written.returncode == 0
    assert (repository.folder / licence).readlink() == Path("../../LICENSE")
    assert (repository.folder / typed).read_text() == ""


def test_a_new_version_goes_everywhere(repository: Repository) -> None:
    """It is set once, in core: all packages take it over, and the ranges between them follow."""
    core = (repository.folder / "core/pyproject.toml").read_text(encoding="utf-8")
    repository.write("core/pyproject.toml", re.sub(r'^version = ".*"$', 'version = "7.2.0"', core, flags=re.MULTILINE))

    assert repository.tool("sync_packages.py").returncode == 0

    for path in repository.folder.glob("plugins/*/pyproject.toml"):
        text = path.read_text(encoding="utf-8")
        assert '\nversion = "7.2.0"\n' in text
        assert '"boost-core>=7.2,<8"' in text
    assert '"boost-store-sqlite>=7.2,<8"' in (repository.folder / "core/pyproject.toml").read_text(encoding="utf-8")
    assert repository.tool("sync_packages.py", "--check").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "\n## How it works\n",
            "\n## Inside\n",
            f"has these headings: {HEADINGS.replace('How it works', 'Inside')}; every package has: {HEADINGS}",
        ),
        (
            "* attrs: ",
            "* att: ",
            f"gives no reason for 'attrs'; write a line '* attrs: ...'\n{NAME} gives a reason for 'att', which it doesn't need",
        ),
        (
            "<!-- generated: options -->\n",
            "",
            "has no line '<!-- generated: options -->'; write it, with a line '<!-- end -->'",
        ),
    ],
)
def test_what_only_an_author_can_write_is_asked_for(repository: Repository, old: str, new: str, problem: str) -> None:
    """A README without a heading, a part or a dependency's reason fails, with the check and without."""
    repository.change(NAME, old, new)

    for arguments in (["--check"], []):
        done = repository.tool("sync_packages.py", *arguments)
        assert (done.returncode, done.stdout) == (1, f"{NAME} {problem}\n"), done.stderr


def test_a_part_that_nothing_makes_is_an_error(repository: Repository) -> None:
    """It is named with its file."""
    repository.change("README.md", "<!-- generated: packages -->", "<!-- generated: parcels -->")

    done = repository.tool("sync_packages.py", "--check")

    assert (done.returncode, done.stderr) == (1, "README.md: nothing makes the part 'parcels'\n")


def test_a_planned_plugin_is_hinted_at(repository: Repository) -> None:
    """Its name alone leads to the distribution; a kind that doesn't exist is refused."""
    repository.change("tools/planned.toml", 'codec = ["msgpack"]', 'codec = ["msgpack", "yaml"]')
    assert repository.tool("sync_packages.py").returncode == 0
    hints = (repository.folder / "core/src/boost_core/registry/hints.py").read_text(encoding="utf-8")
    assert '("codec", "yaml"): "boost-codec-yaml",' in hints

    repository.change("tools/planned.toml", "codec = ", "codex = ")
    done = repository.tool("sync_packages.py")
    assert (done.returncode, done.stderr) == (1, "tools/planned.toml: no kind of plugin: codex\n")


def test_a_misspelt_argument_writes_nothing(repository: Repository) -> None:
    """The usage is shown instead."""
    repository.change("docs/errors.md", "## bad-option\n", "## bad-opinion\n")
    before = texts(repository)

    done = repository.tool("sync_packages.py", "--chekc")

    assert done.returncode == 2
    assert re.search(r"^python tools/sync_packages.py --check +writes nothing", done.stderr, re.MULTILINE)
    assert texts(repository) == before


def entries(name: str) -> set[str]:
    """Return the entries of a file of requirements, each with its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {entry.rstrip() for entry in re.split(r"\n(?=\S)", text) if entry[0] != "#"}


def test_what_packages_declare_is_what_is_pinned() -> None:
    """Each dependency is listed as its package declares it, and what is pinned for users is what the tests run with."""
    declared: set[str] = set()
    for path in [ROOT / "core/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        declared |= set(tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"])

    assert {one for one in declared if not one.startswith("boost-")} <= entries("run.in")
    assert entries("run.txt") <= entries("dev.txt")


def test_every_requirement_is_pinned_by_hash_and_no_index_is_named() -> None:
    """The locked requirements install the same files anywhere, through whatever index pip is set to."""
    for path in (ROOT / "requirements").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        assert "index" not in text
        if path.suffix == ".txt":
            for entry in entries(path.name):
                assert re.match(r"[\w.-]+==[\w.]+ ", entry), entry
                assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
