"""What the tests across packages share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from projects import Project  # noqa: E402 - found by the line above


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Yield an empty project whose processes end with the test."""
    project = Project(tmp_path)
    yield project
    project.end()
