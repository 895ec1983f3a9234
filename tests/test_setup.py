"""tools/setup_env.py, on which every make target rests: what it sets up, and what it says is missing."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from repository import ROOT, Repository

sys.path.insert(0, str(ROOT / "tools"))

from setup_reasons import reason  # noqa: E402 - found by the line above

pytestmark = pytest.mark.timeout(180)

INDEX = "export PIP_INDEX_URL=https://MIRROR/simple"
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
PYTHON = str(Path(sys.executable).resolve())
MAIN = '"boost_core.cli.launcher:main"'


def environ(**given: str) -> dict[str, str]:
    """Return the environment of a set-up; without the variables that would show pip another index, if one is given."""
    cut = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL") if "PIP_INDEX_URL" in given else ()
    return {**{name: value for name, value in os.environ.items() if name not in cut}, **given}


def set_up(root: Path, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the tool as make does."""
    command = [PYTHON, str(root / "tools" / "setup_env.py"), str(folder)]
    return subprocess.run(command, env=environ(**given), capture_output=True, text=True, timeout=150, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a set-up failed with."""
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"boost: [^\n]+\n", done.stderr), done.stderr
    return done.stderr.removeprefix("boost: ").rstrip("\n")


@pytest.fixture
def shim(tmp_path: Path) -> Any:
    """Return what gives Python a module in the place of its own: ``shim(name, text)`` is its PYTHONPATH."""

    def write(name: str, text: str) -> str:
        (tmp_path / "shim").mkdir()
        (tmp_path / "shim" / f"{name}.py").write_text(text)
        return str(tmp_path / "shim")

    return write


# --- the machine -------------------------------------------------------------------------------------------


def test_make_without_python_says_what_to_install() -> None:
    """The first line names the interpreter that was looked for and both remedies."""
    done = subprocess.run(
        ["make", "setup", "PYTHON=python-of-nowhere"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "boost: no python-of-nowhere here; install Python 3.11 or later, or say: make PYTHON=/path/to/python"
    )


def test_an_older_python_is_told_so(tmp_path: Path, shim: Any) -> None:
    """Before anything is made."""
    path = shim("sitecustomize", "import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n")

    line = said(set_up(ROOT, tmp_path / "env", PYTHONPATH=path))

    assert line == "this is Python 3.9; 3.11 or later is needed: make PYTHON=python3.12"
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("name", ["setup_env.py", "setup_reasons.py"])
def test_older_pythons_can_read_it(name: str) -> None:
    """A syntax error would hide the line that says what is wrong."""
    ast.parse((ROOT / "tools" / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_python_without_venv_is_told_so(tmp_path: Path, shim: Any) -> None:
    """As Debian's python3 without python3-venv, which lacks ensurepip."""
    path = shim("ensurepip", "raise ModuleNotFoundError(\"No module named 'ensurepip'\", name='ensurepip')\n")

    line = said(set_up(ROOT, tmp_path / "env", PYTHONPATH=path))

    assert line == "this Python has no venv module; on Debian: apt-get install python3-venv"
    assert not (tmp_path / "env").exists()


def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    """With the reason, and the way to choose another one."""
    (tmp_path / "file").touch()

    line = said(set_up(ROOT, tmp_path / "file" / "env"))

    assert line == (
        f"{tmp_path}/file/env can't be made ([Errno 20] Not a directory: '{tmp_path}/file/env'); "
        "choose another folder: make VENV=/tmp/boost-venv"
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A mistyped VENV deletes nobody's files."""
    (tmp_path / "thesis.txt").write_text("years of work")

    line = said(set_up(ROOT, tmp_path))

    assert line == f"{tmp_path} holds something else than an environment; choose another folder: make VENV=.venv"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# --- the index ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the environment is that tests share: each set-up takes it up as a failed one left it."""
    return tmp_path_factory.mktemp("shared") / "env"


def source(folder: Path) -> tuple[Path, str]:
    """Write a source distribution that needs a compiler: ``native`` 1.0; return its folder and its digest."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "native"\nversion = "1.0"\n',
        "setup.py": 'from setuptools import *\nsetup(ext_modules=[Extension("native", ["native.c"])])\n',
        "native.c": "#include <Python.h>\n",
    }
    path = folder / "native-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"native-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder, hashlib.sha256(path.read_bytes()).hexdigest()


def requiring(folder: Path, line: str) -> Path:
    """Return a copy of the repository that requires one distribution."""
    (folder / "repository").mkdir()
    return Repository(folder / "repository", plugins=False).write("requirements/dev.txt", f"{line}\n").parents[1]


def test_an_index_that_cant_be_reached_is_told_from_all_else(folder: Path) -> None:
    """The line says why, and how to name a mirror."""
    assert said(set_up(ROOT, folder, **NOWHERE)) == (
        f"pip reaches no package index (Connection refused); connect this machine, or name a mirror: {INDEX}"
    )


def test_an_index_that_lacks_a_version_is_told_from_one_that_isnt_there(folder: Path, tmp_path: Path) -> None:
    """As a mirror that is behind: the distribution is named."""
    links, digest = source(tmp_path)
    root = requiring(tmp_path, f"native==2.0 --hash=sha256:{digest}")

    line = said(set_up(root, folder, **NOWHERE | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)}))

    assert line == f"the package index has no native==2.0 for this Python; use one that is up to date: {INDEX}"


def test_a_file_with_another_hash_is_not_installed(folder: Path, tmp_path: Path) -> None:
    """What an index changed, or somebody on the way, is named."""
    links, _ = source(tmp_path)
    root = requiring(tmp_path, f"native==1.0 --hash=sha256:{'0' * 64}")

    line = said(set_up(root, folder, **NOWHERE | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)}))

    assert line == (
        f"the package index has another file of native==1.0 than requirements/dev.txt names; use another one: {INDEX}"
    )


def test_a_missing_compiler_is_told_with_the_package_to_install(folder: Path, tmp_path: Path) -> None:
    """Where a dependency has no wheel for this machine."""
    links, digest = source(tmp_path)
    root = requiring(tmp_path, f"native==1.0 --hash=sha256:{digest}")

    line = said(set_up(root, folder, PIP_FIND_LINKS=str(links), PATH=str(tmp_path), CC="gcc"))

    assert line == (
        "native has no wheel for this Python, and there is no C compiler; on Debian: apt-get install gcc python3-dev"
    )


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "the disk is full; make room, or choose another folder: make VENV=/path/with/room",
        ),
        (
            (
                "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/opt/env/bin'\n"
                "Check the permissions.\n"
            ),
            "/opt/env/bin can't be written; choose another folder: make VENV=/tmp/boost-venv",
        ),
        (
            (
                "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect to proxy.', "
                "OSError('Tunnel connection failed: 407'))': /simple/attrs/\n"
                "ERROR: Could not find a version that satisfies the requirement attrs==26.1.0 (from versions: none)\n"
                "ERROR: No matching distribution found for attrs==26.1.0\n"
            ),
            f"pip reaches no package index (Cannot connect to proxy); connect this machine, or name a mirror: {INDEX}",
        ),
        (
            (
                "ERROR: Could not find a version that satisfies the requirement attrs==26.1.0 (from versions: none)\n"
                "ERROR: No matching distribution found for attrs==26.1.0\n"
            ),
            f"pip reaches no package index; connect this machine, or name a mirror: {INDEX}",
        ),
        (
            (
                "  error: can't find Rust compiler\n  ERROR: Failed building wheel for ruff\n"
                "ERROR: Failed to build installable wheels for some pyproject.toml based projects (ruff)\n"
            ),
            "ruff has no wheel for this Python, and there is no Rust here; on Debian: apt-get install cargo",
        ),
        (
            (
                "  Cargo, the Rust package manager, is not installed or is not on PATH.\n"
                "error: metadata-generation-failed\n"
            ),
            "a dependency has no wheel for this Python, and there is no Rust here; on Debian: apt-get install cargo",
        ),
        (
            (
                "      native.c:1:10: fatal error: Python.h: No such file or directory\n"
                "  ERROR: Failed building wheel for native\n"
            ),
            (
                "native has no wheel for this Python, and there is no C compiler; "
                "on Debian: apt-get install gcc python3-dev"
            ),
        ),
        (
            "WARNING: something else\nERROR: Invalid requirement: 'attrs=26'\nHint: = is not an operator\n",
            "pip failed: Invalid requirement: 'attrs=26'",
        ),
        ("", "pip failed: it said nothing"),
    ],
    ids=["disk", "permission", "proxy", "silent", "rust", "cargo", "headers", "else", "nothing"],
)
def test_other_failures_of_pip_are_told_in_one_line(output: str, line: str) -> None:
    """From what pip printed, as recorded."""
    assert reason(output) == line


# --- a set-up that works -----------------------------------------------------------------------------------


@attrs.frozen
class Ready:
    """A repository that requires only what core needs, and its environment."""

    repository: Repository
    folder: Path

    def set_up(self, **given: str) -> subprocess.CompletedProcess[str]:
        """Set up again."""
        return set_up(self.repository.folder, self.folder, **given)

    def boost(self, *arguments: str, name: str = "boost") -> str:
        """Return what a command of the environment prints."""
        command = [str(self.folder / "bin" / name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Let make set up a repository, where the PATH has Python, make and a shell and nothing else."""
    folder = tmp_path_factory.mktemp("ready")
    repository = Repository(folder)
    pins = re.split(r"\n(?=\S)", (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"))
    backend = next(pin for pin in pins if pin.startswith("uv-build=="))
    run = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    repository.write("requirements/dev.txt", f"{run}{backend}\n")
    programs = tmp_path_factory.mktemp("programs")
    for name in ("make", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text(f'#!{shutil.which("sh")}\nexec {PYTHON} "$@"\n')
    (programs / "python3").chmod(0o755)

    made = subprocess.run(
        ["make", "setup"],
        cwd=folder,
        env=environ(PATH=str(programs)),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert (made.returncode, made.stderr) == (0, "")
    return Ready(repository, folder / ".venv")


def test_python_make_and_a_shell_are_all_it_takes(ready: Ready) -> None:
    """The environment has the boost command, and the plugins."""
    assert re.search(r"^broker +sqlite +boost-broker-sqlite ", ready.boost("plugins"), re.MULTILINE)


def test_what_is_set_up_asks_no_index(ready: Ready) -> None:
    """A second set-up finds nothing to do, also without a network."""
    ready.set_up()

    again = ready.set_up(**NOWHERE)

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_changed_package_is_installed_anew(ready: Ready) -> None:
    """Such as one with a new command."""
    ready.repository.change("core/pyproject.toml", "[project.scripts]\n", f"[project.scripts]\nknots = {MAIN}\n")

    assert ready.set_up().stderr == ""
    assert ready.boost("--version", name="knots") == ready.boost("--version")

    ready.repository.change("core/pyproject.toml", f"knots = {MAIN}\n", "")


def test_a_set_up_that_failed_counts_for_nothing(ready: Ready) -> None:
    """What it left half done is mended, even where the requirements are again those of the last success."""
    pins = ready.repository.folder / "requirements" / "dev.txt"
    before = pins.read_text(encoding="utf-8")
    ready.set_up()
    pins.write_text(f"{before}missing==1.0 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    assert said(ready.set_up(**NOWHERE)).startswith("pip reaches no package index")
    for half in ready.folder.glob("lib/python*/site-packages/click*"):
        shutil.rmtree(half)

    pins.write_text(before, encoding="utf-8")
    assert ready.set_up().stderr == ""

    assert ready.boost("--version").startswith("boost")


def test_an_environment_of_another_python_is_made_anew(ready: Ready) -> None:
    """``make PYTHON=...`` means that interpreter, not the one that made what is there."""
    ready.set_up()
    stamp, old = ready.folder / "boost-stamp", ready.folder / "of the old one"
    old.touch()
    stamp.write_text(re.sub(r"^Python \S+", "Python 3.99.0", stamp.read_text()))

    assert ready.set_up().stderr == ""

    assert not old.exists()
    assert ready.boost("--version").startswith("boost")


def test_a_copied_repository_works_with_its_own_code(ready: Ready, tmp_path: Path) -> None:
    """Where its environment was copied along, which still leads to the original."""
    ready.set_up()
    shutil.copytree(ready.repository.folder, tmp_path / "copy", symlinks=True)
    copy = attrs.evolve(ready, folder=tmp_path / "copy" / ".venv")

    assert set_up(tmp_path / "copy", copy.folder).stderr == ""

    home = copy.boost("-c", "import boost_core; print(boost_core.__file__)", name="python").strip()
    assert home == str(tmp_path / "copy" / "core" / "src" / "boost_core" / "__init__.py")
    assert str(copy.folder) in (copy.folder / "bin" / "boost").read_text().splitlines()[0]
