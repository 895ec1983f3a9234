"""What went wrong with a package: one line, and the output that it was read from."""

from __future__ import annotations


class Failure(Exception):
    """A package isn't what it should be."""

    def __init__(self, line: str, output: str = "") -> None:
        super().__init__(line)
        self.line = line
        self.output = output


def last_line(output: str) -> str:
    """Return the last line that says something: as a rule the error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
