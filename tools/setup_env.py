"""Makes or refreshes the project's environment: a virtual environment, pinned requirements, all packages editable.

Run by make, with any Python of 3.11 or later. What is missing is said in one line with its remedy. Only the
standard library is used, and syntax that older Pythons can read, so that they can be told what is wrong.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from setup_reasons import reason

ROOT = Path(__file__).resolve().parent.parent
FLOOR = (3, 11)


class Missing(Exception):
    """Something is not there; the text says what, and what to do."""


def main(folder):
    """Bring the environment in ``folder`` up to date; return the exit code."""
    try:
        set_up(Path(folder).absolute())
    except Missing as missing:
        print("boost: %s" % missing, file=sys.stderr)
        return 1
    return 0


def set_up(folder):
    """Do nothing where the stamp fits; else make what is missing."""
    if sys.version_info < FLOOR:
        raise Missing("this is Python %d.%d; 3.11 or later is needed: make PYTHON=python3.12" % sys.version_info[:2])
    stamp, made = folder / "boost-stamp", "Python %s for %s\n" % (sys.version.split()[0], ROOT)
    wanted, found = made + fingerprint(), stamp.read_text() if stamp.exists() else ""
    if found == wanted:
        return
    # One of another Python, or copied with its repository, whose programs still start the original's interpreter.
    make_environment(folder, clear=found.startswith("Python ") and not found.startswith(made))
    stamp.write_text(made)  # what is left behind by a failure from here on fits no fingerprint
    python = str(folder / "bin" / "python")
    install(python, "--require-hashes", "-r", str(ROOT / "requirements" / "dev.txt"))
    editable = [part for package in packages() for part in ("-e", str(package))]
    install(python, "--no-deps", "--no-build-isolation", *editable)
    stamp.write_text(wanted)


def packages():
    """Return the folders of all packages, core first."""
    return [ROOT / "core", *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]


def fingerprint():
    """Return a digest of everything the environment is made from."""
    digest = hashlib.sha256(sys.version.encode())
    for path in [ROOT / "requirements" / "dev.txt"] + [package / "pyproject.toml" for package in packages()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_environment(folder, clear):
    """Create the virtual environment; ``clear`` the one that is there."""
    if folder.is_dir() and os.listdir(folder) and not (folder / "pyvenv.cfg").exists():  # noqa: PTH208
        raise Missing("%s holds something else than an environment; choose another folder: make VENV=.venv" % folder)
    try:
        import ensurepip  # noqa: F401 - Debian leaves it out of its python3 package
        import venv
    except ImportError:
        raise Missing("this Python has no venv module; on Debian: apt-get install python3-venv") from None
    try:
        venv.create(folder, with_pip=True, clear=clear or not (folder / "bin" / "python").exists())
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(
            "%s can't be made (%s); choose another folder: make VENV=/tmp/boost-venv" % (folder, error)
        ) from None


def install(python, *arguments):
    """Run pip; say in one line why it failed."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    path = str(Path(python).parent) + os.pathsep + os.environ.get("PATH", "")  # the build backend is a program there
    environ = {**os.environ, "PIP_NO_INPUT": "1", "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        raise Missing(reason(done.stdout + done.stderr))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv"))
