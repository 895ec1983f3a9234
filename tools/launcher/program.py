"""Programs that install or control: run to their end, with their last words where they fail."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from launcher.errors import LauncherError

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_ERRORS: Final = ("e:", "error", "[error]", "exception")


class ProgramFailed(LauncherError):
    """A program ended with an error; the text is what it said last."""

    def __init__(self, command: Sequence[str], output: str) -> None:
        self.output = output
        super().__init__(f"{command[0].rsplit('/', 1)[-1]}: {_telling_line(output)}")


def run(*command: str, environ: Mapping[str, str] | None = None, seconds: float = 600) -> str:
    """Return what a program printed; raise ``ProgramFailed`` where it can't be run, fails or takes too long."""
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailed(command, f"not done after {seconds:.0f} s") from None
    except OSError as error:
        raise ProgramFailed(command, str(error)) from None
    if done.returncode:
        raise ProgramFailed(command, done.stdout + done.stderr)
    return done.stdout


def _telling_line(output: str) -> str:
    lines = [line.strip() for line in _COLOUR.sub("", output).splitlines()]
    lines = [line for line in lines if line not in ("", "[ERROR]")]
    errors = [line for line in lines if line.lower().startswith(_ERRORS)]
    return (errors or lines[-1:] or ["it said nothing"])[0][:300]
