"""Prove that each package stands alone: installed from its wheel with what it declares, and nothing else.

python tools/check_isolated.py              all packages
python tools/check_isolated.py PACKAGE...   these, such as boost-core

One line a package; the output behind a failure goes to stderr. Ends with 1 where anything fails.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent))

from isolation.failure import Failure
from isolation.proofs import prove
from isolation.wheels import build_wheel
from sync.packages import Package, find_packages

ROOT: Final = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def main(names: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    packages = find_packages(ROOT)
    unknown = sorted(set(names) - {package.name for package in packages})
    if unknown:
        known = ", ".join(package.name for package in packages)
        print(f"No package {', '.join(unknown)} here. Packages: {known}", file=sys.stderr)
        return 2
    chosen = [package for package in packages if package.name in names or not names]
    with tempfile.TemporaryDirectory(prefix="boost-isolated-") as folder:
        return check(packages, chosen, Path(folder))


def check(packages: Sequence[Package], chosen: Sequence[Package], folder: Path) -> int:
    """Build all packages and prove the chosen ones; return the exit code."""
    built = {package.name: attempt(package, partial(build_wheel, package, folder)) for package in packages}
    wheels: Mapping[str, Path] = {name: path for name, path in built.items() if path}
    if len(wheels) < len(packages):
        return 1  # without its wheel, a package that others need would be looked for in the index
    proven = [prove_one(package, wheels, folder / package.name) for package in chosen]
    return 0 if all(proven) else 1


def prove_one(package: Package, wheels: Mapping[str, Path], folder: Path) -> bool:
    """Prove one package and say so."""
    result = attempt(package, partial(prove, package, wheels, ROOT, folder))
    if result is not None:
        print(f"{package.name}: ok, {result}", flush=True)
    return result is not None


def attempt(package: Package, step: Callable[[], T]) -> T | None:
    """Return what a step gives; where it fails, say so and return None."""
    try:
        return step()
    except Failure as failure:
        print(f"{package.name}: FAILED, {failure.line}", flush=True)
        print(failure.output, end="", file=sys.stderr, flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
