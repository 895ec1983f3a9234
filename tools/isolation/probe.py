"""Run by a room's Python: says what an installed package imports and shouldn't, one problem a line.

python probe.py DISTRIBUTION PLUGIN_MODULE...    the modules that hand over specs are named, all others found

Uses the standard library only, for nothing else may be in the room.
"""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

CLIENTS = frozenset({"sqlite3"})
"""Modules of the standard library that are the clients of some plugin."""


def main(distribution: str, *plugins: str) -> int:
    """Print the problems; return the exit code."""
    package = distribution.replace("-", "_")
    problems = [*clients(package, plugins), *outside(package)]
    modules, broken = import_all(package)
    problems += [*broken, *undeclared(distribution, package, modules)]
    print("".join(f"{problem}\n" for problem in dict.fromkeys(problems)), end="")
    return 1 if problems else 0


def clients(package: str, plugins: tuple[str, ...]) -> Iterator[str]:
    """Yield what the plugin modules load beyond attrs and what plugins get from core."""
    for name in ("attrs", "boost_core.plugin"):
        importlib.import_module(name)
    usual = {*tops(), *sys.stdlib_module_names, package} - CLIENTS
    for plugin in plugins:
        importlib.import_module(plugin)
        for name in sorted(tops() - usual):
            yield f"{plugin} loads {name}; leave that to the module that the spec's factory names"


def tops() -> set[str]:
    """Return the packages that are loaded."""
    return {name.partition(".")[0] for name in sys.modules}


def outside(package: str) -> Iterator[str]:
    """Say so where the package is another one than the installed wheel's."""
    path = Path(str(importlib.import_module(package).__file__))
    if not path.is_relative_to(sys.prefix):
        yield f"{package} is imported from {path.parent}, not from its wheel"


def import_all(package: str) -> tuple[list[ModuleType], list[str]]:
    """Import every module of a package; return them, and what is wrong with those that don't import."""
    modules, broken = [], []
    found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.", onerror=lambda _: None)
    for name in [package, *(module.name for module in found)]:
        if name.endswith(".__main__"):
            continue
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:
            broken.append(f"{name} doesn't import: {type(error).__name__}: {error}")
    return modules, broken


def undeclared(distribution: str, package: str, modules: list[ModuleType]) -> Iterator[str]:
    """Yield what is imported anywhere, inside functions too, and isn't among the declared dependencies.

    That another dependency brings it doesn't count: it may cease to.
    """
    declared = {normal(re.split(r"[^\w.-]", text)[0]) for text in metadata.requires(distribution) or ()}
    owners = metadata.packages_distributions()
    for module in modules:
        for name in sorted(imported(Path(str(module.__file__)))):
            brought_by = {normal(owner) for owner in owners.get(name, [name])}
            if name not in sys.stdlib_module_names and name != package and not brought_by & declared:
                yield f"{module.__name__} imports {name}, which {distribution} doesn't declare"


def normal(name: str) -> str:
    """Return a distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """Return the packages that a source file imports when it runs."""
    tree = ast.parse(path.read_bytes())
    typing_only = [node for node in ast.walk(tree) if isinstance(node, ast.If) and is_typing(node.test)]
    unseen = {id(inner) for node in typing_only for statement in node.body for inner in ast.walk(statement)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    return names


def is_typing(test: ast.expr) -> bool:
    """Return whether a condition is TYPE_CHECKING."""
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
