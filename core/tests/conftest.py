"""What the tests of core share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boost_core import App
from boost_core.registry.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))

from plugged import built_ins  # noqa: E402 - found by the line above


@pytest.fixture
def app() -> Iterator[App]:
    """Yield an app on a memory broker and store of its own."""
    app = App("test", broker="memory", store="memory")
    app.registry = Registry((), built_ins())
    yield app
    app.close()
