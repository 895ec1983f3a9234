"""Keep all packages alike: stamps, licences, install hints, generated parts of README files and of docs/.

python tools/sync_packages.py            writes what is out of step
python tools/sync_packages.py --check    writes nothing, says what is out of step and ends with 1
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sync import commands, contracts, errors, hints, stamps, tables
from sync.packages import Package, find_packages, use_sources

COMMAND: Final = "python tools/sync_packages.py"


def texts(root: Path, packages: Sequence[Package]) -> Iterator[tuple[Path, str]]:
    """Yield each file that is stamped or generated, with the text it should have."""
    core = packages[0]
    model = (core.folder / "pyproject.toml").read_text(encoding="utf-8")
    yield stamps.core_version(core)
    for package in packages:
        path = package.folder / "pyproject.toml"
        yield path, stamps.stamped(path.read_text(encoding="utf-8"), model, [each.name for each in packages])
        yield package.source / "py.typed", ""
        yield from _readme(package.folder / "README.md", _parts(package), root)
    yield core.source / "registry" / "hints.py", hints.hints_text(packages, root / "tools" / "planned.toml")
    yield root / "docs" / "errors.md", errors.errors_text()
    yield root / "docs" / "commands.md", commands.commands_text()
    yield from _readme(root / "docs" / "plugins.md", contracts.contracts_parts(), root)
    specs = [spec for package in packages for spec in package.specs()]
    whole = {"packages": tables.packages_text(packages, root), "guarantees": tables.guarantees_text(specs)}
    yield from _readme(root / "README.md", whole, root)


def _parts(package: Package) -> dict[str, str]:
    parts = {"options": tables.options_text(package)}
    capabilities = tables.capabilities_text(package.specs())
    return {**parts, "capabilities": capabilities} if capabilities else parts


def _readme(path: Path, parts: dict[str, str], root: Path) -> Iterator[tuple[Path, str]]:
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    try:
        yield path, tables.filled(text, parts, root)
    except (KeyError, FileNotFoundError) as error:
        message = f"{path.relative_to(root)}: nothing makes the part {error}"
        raise SystemExit(message) from error


def written(path: Path, text: str, *, check: bool) -> bool:
    """Bring one file into step unless ``check``; return True if it was out of step."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return True


def linked(link: Path, target: Path, *, check: bool) -> bool:
    """Make one symbolic link unless ``check``; return True if it was out of step."""
    if link.is_symlink() and link.readlink() == target:
        return False
    if not check:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return True


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    if not set(arguments) <= {"--check"}:
        print(__doc__, file=sys.stderr)
        return 2
    root, check = Path(__file__).resolve().parent.parent, "--check" in arguments
    packages = find_packages(root)
    use_sources(packages)
    links = [stamps.licence_link(package, root) for package in packages]
    stale = [link for link, target in links if linked(link, target, check=check)]
    stale += [path for path, text in list(texts(root, packages)) if written(path, text, check=check)]
    for path in stale:
        print(f"{path.relative_to(root)}: {'out of step' if check else 'written'}")
    if check and stale:
        print(f"Mend it: {COMMAND}")
    problems = [
        f"{package.folder.relative_to(root)}/README.md {problem}"
        for package in packages
        for problem in stamps.readme_problems(package, list(_parts(package)))
    ]
    print("".join(f"{problem}\n" for problem in problems), end="")
    return 1 if problems or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
