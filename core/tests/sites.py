"""Distributions of plugins, installed into a folder of a test."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from boost_core.errors import BoostError
from boost_core.registry.index import scan
from boost_core.registry.registry import Registry

_numbers = itertools.count()


class Site:
    """A folder of installed distributions, written as an installer leaves them behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        distribution: str,
        version: str = "1.4.0",
        *,
        text: str = "",
        points: Sequence[str] = ("brokers:kafka",),
        requires: Sequence[str] = (),
    ) -> str:
        """Install a package whose ``plugin`` module is ``text``; return the package's name."""
        package = f"{distribution.replace('-', '_')}_{next(_numbers)}"
        (self.folder / package).mkdir()
        (self.folder / package / "__init__.py").touch()
        (self.folder / package / "plugin.py").write_text(textwrap.dedent(text))
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}")
        groups = [point.split(":") for point in points]
        lines = [f"[boost.{group}]\n{name} = {package}.plugin\n" for group, name in groups]
        (info / "entry_points.txt").write_text("\n".join(lines))
        return package

    def registry(self, disable: Sequence[str] = (), *, alone: bool = True) -> Registry:
        """Return a registry of what is installed here; with ``alone=False`` also of what this process has."""
        return Registry(disable, scan([str(self.folder), *([] if alone else sys.path)]))

    def boost(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a ``boost`` command that finds these distributions beside the installed ones."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BOOST_")}
        return subprocess.run(
            [sys.executable, "-m", "boost_core.cli", *arguments],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.folder), **environ},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )


@pytest.fixture(name="site")
def site_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Yield an empty folder of distributions that this process can import from."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.partition(".")[0].rpartition("_")[2].isdigit():
            del sys.modules[name]


def brokers(*specs: str, head: str = "") -> str:
    """Return the text of a plugin module that hands over these specs."""
    return (
        f"import attrs\nfrom boost_core.plugin import *\n{textwrap.dedent(head)}\n"
        f"@hookimpl\ndef boost_brokers():\n    return [{', '.join(specs)}]\n"
    )


def broker(name: str = "kafka", **facts: str) -> str:
    """Return the expression of a broker's spec; its facts are expressions too."""
    given = {"factory": '"nowhere:Nothing"', **facts}
    return f"BrokerSpec(name={name!r}, {', '.join(f'{key}={value}' for key, value in given.items())})"


def error_of(registry: Registry, name: str = "kafka", kind: str = "broker") -> str:
    """Return the text of the error that a look-up ends in, as the command line shows it."""
    with pytest.raises(BoostError) as caught:
        getattr(registry, kind)(name)
    return f"{type(caught.value).__name__}: {caught.value}"
