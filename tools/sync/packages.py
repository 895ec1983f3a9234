"""The packages of this repository: their pyproject.toml files, entry points and specs."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

KINDS: Final = ("broker", "pool", "codec", "store", "control")


@attrs.frozen
class Package:
    """One distribution of this repository."""

    folder: Path
    project: dict[str, Any]

    @property
    def name(self) -> str:
        """The distribution's name."""
        return str(self.project["name"])

    @property
    def module(self) -> str:
        """The import name."""
        return self.name.replace("-", "_")

    @property
    def source(self) -> Path:
        """The folder of the import package."""
        return self.folder / "src" / self.module

    @property
    def is_core(self) -> bool:
        """Whether it is the one that all others need."""
        return self.name == "boost-core"

    def provides(self) -> list[tuple[str, str, str]]:
        """Return (kind, name, module) of each plugin, in the order of KINDS and of the file."""
        groups = self.project.get("entry-points", {})
        return [(kind, name, module) for kind in KINDS for name, module in groups.get(f"boost.{kind}s", {}).items()]

    def plugin_modules(self) -> list[str]:
        """Return the modules that hand over specs; those of no plugin are the package itself."""
        return list(dict.fromkeys(module.partition(":")[0] for _, _, module in self.provides())) or [self.module]

    def specs(self) -> Iterator[Any]:
        """Yield the spec of each plugin, as its hooks hand it over. ``use_sources`` comes first."""
        for kind, name, module in self.provides():
            handed = getattr(importlib.import_module(module), f"boost_{kind}s")()
            yield next(spec for spec in handed if spec.name == name)

    def dependencies(self) -> list[str]:
        """Return the names of the distributions that it needs to run, in the order of the file."""
        return [re.split(r"[^\w.-]", text)[0] for text in self.project.get("dependencies", ())]


def find_packages(root: Path) -> list[Package]:
    """Return core, the testkit if there is one, and the plugins by name."""
    folders = [root / "core", root / "testkit", *sorted((root / "plugins").glob("*"))]
    files = [folder / "pyproject.toml" for folder in folders]
    return [
        Package(file.parent, tomllib.loads(file.read_text(encoding="utf-8"))["project"])
        for file in files
        if file.is_file()
    ]


def use_sources(packages: Sequence[Package]) -> None:
    """Let imports find these packages before installed ones."""
    sys.path[:0] = [str(package.folder / "src") for package in packages]
    importlib.invalidate_caches()
