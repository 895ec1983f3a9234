"""What all packages share: version, licence and build system in their pyproject.toml, and the files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sync.packages import Package

STAMPED: Final = ("version", "requires-python", "license", "license-files")
HEADINGS: Final = ("Install", "Example", "Options", "Capabilities and limits", "How it works", "Dependencies")

_TABLE: Final = re.compile(r"^(?=\[)", re.MULTILINE)
_OWN_PIN: Final = re.compile(r'"(boost-[a-z-]+)(\[[a-z,-]+\])?(?:[<>=!~][^"]*)?"')
_HEADING: Final = re.compile(r"^## (.*)$", re.MULTILINE)
_REASON: Final = re.compile(r"^\* ([\w.-]+): \S", re.MULTILINE)
_VERSION: Final = re.compile(r'^__version__ = ".*"$', re.MULTILINE)


def stamped(text: str, core: str, own: Sequence[str]) -> str:
    """Return a pyproject.toml with core's stamps and with ranges for the packages named in ``own``."""
    tables, models = _tables(text), _tables(core)
    tables["[build-system]"] = models["[build-system]"]
    for key in STAMPED:
        tables["[project]"] = _with_line(tables["[project]"], key, _line(models["[project]"], key))
    version = _line(models["[project]"], "version").partition('"')[2].rstrip('"')
    return _pinned("".join(tables.values()), version, own)


def _tables(text: str) -> dict[str, str]:
    """Return a TOML text cut before each header, by header; what stands above the first one is under ''."""
    parts = _TABLE.split(text)
    tables = {part.partition("\n")[0].strip() if part.startswith("[") else "": part for part in parts}
    return tables if "[build-system]" in tables else {"": tables.pop("", ""), "[build-system]": "", **tables}


def _line(table: str, key: str) -> str:
    found = re.search(rf"^{key} = .*$", table, re.MULTILINE)
    if found is None:
        message = f"core/pyproject.toml has no {key}, which all packages take from it"
        raise SystemExit(message)
    return found.group()


def _with_line(table: str, key: str, line: str) -> str:
    changed, count = re.subn(rf"^{key} = .*$", lambda _: line, table, flags=re.MULTILINE)
    return changed if count else table.rstrip("\n") + f"\n{line}\n\n"


def _pinned(text: str, version: str, own: Sequence[str]) -> str:
    major, minor, *_ = version.split(".")

    def pin(found: re.Match[str]) -> str:
        name, extra = found.group(1), found.group(2) or ""
        return f'"{name}{extra}>={major}.{minor},<{int(major) + 1}"' if name in own else found.group()

    return re.sub(
        r"^(?!name = |description = ).*$", lambda line: _OWN_PIN.sub(pin, line.group()), text, flags=re.MULTILINE
    )


def core_version(core: Package) -> tuple[Path, str]:
    """Return core's ``__init__.py`` and its text with the version of the pyproject.toml."""
    path = core.source / "__init__.py"
    return path, _VERSION.sub(f'__version__ = "{core.project["version"]}"', path.read_text(encoding="utf-8"))


def licence_link(package: Package, root: Path) -> tuple[Path, Path]:
    """Return where a package's licence stands and what it must point to."""
    link = package.folder / "LICENSE"
    return link, Path("/".join([".."] * len(package.folder.relative_to(root).parts))) / "LICENSE"


def readme_problems(package: Package, marks: Sequence[str]) -> list[str]:
    """Return what a README lacks that only its author can write, with what to do."""
    path = package.folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    parts = [f"<!-- generated: {mark} -->" for mark in marks]
    problems = [f"has no line '{part}'; write it, with a line '<!-- end -->'" for part in parts if part not in text]
    headings = _HEADING.findall(text)
    if headings != list(HEADINGS):
        found, wanted = ", ".join(headings) or "none", ", ".join(HEADINGS)
        problems.append(f"has these headings: {found}; every package has: {wanted}")
    reasons, declared = _REASON.findall(text.partition("## Dependencies\n")[2]), package.dependencies()
    problems += [f"gives no reason for '{one}'; write a line '* {one}: ...'" for one in declared if one not in reasons]
    problems += [f"gives a reason for '{one}', which it doesn't need" for one in reasons if one not in declared]
    return problems
