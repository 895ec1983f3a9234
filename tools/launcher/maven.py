"""Programs of the Java world: jars with all that they need, fetched by Maven under their coordinates."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launcher.debian import install_packages
from launcher.errors import Unavailable
from launcher.home import home
from launcher.program import ProgramFailed, run

_FLOOR: Final = 17
_DEPENDENCY: Final = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_PROJECT: Final = """\
<project><modelVersion>4.0.0</modelVersion><groupId>launcher</groupId><artifactId>jars</artifactId>
<version>1</version><packaging>pom</packaging><dependencies>{}</dependencies></project>
"""


def need_java() -> None:
    """Install a Java that is new enough, and Maven, where they are missing."""
    packages = [
        *([] if shutil.which("java") else ["default-jre-headless"]),
        *([] if shutil.which("mvn") else ["maven"]),
    ]
    if packages:
        install_packages(*packages)
    version = _java_version()
    if version < _FLOOR:
        raise Unavailable(f"java is version {version}; {_FLOOR} or later must come first on PATH")


def fetch_jars(folder: Path, coordinates: Sequence[str]) -> None:
    """Put the jars of ``group:artifact:version`` coordinates, and all that they need, into a folder."""
    project = folder / "pom.xml"
    dependencies = "".join(_DEPENDENCY.format(*coordinate.split(":")) for coordinate in coordinates)
    project.write_text(_PROJECT.format(dependencies), encoding="utf-8")
    options = ["--quiet", "--batch-mode", f"-Dmaven.repo.local={home() / 'maven'}", "--file", str(project)]
    try:
        run("mvn", *options, "dependency:copy-dependencies", f"-DoutputDirectory={folder}", "-DincludeScope=runtime")
    except ProgramFailed as failed:
        raise Unavailable(f"Maven can't fetch {coordinates[0]} ({failed}); it must reach a repository") from None


def _java_version() -> int:
    try:
        said = run("java", "--version")
    except ProgramFailed:
        return 8  # the last one that doesn't know --version
    return int((re.search(r"\d+", said) or ["0"])[0])
