"""One job a source file: what it defines, how long it is, what it imports. No broker is named here."""

from __future__ import annotations

import ast
import json
import os
import time
import tokenize
from pathlib import Path
from typing import TypedDict

from boost_core import Reject, boost, current


class LongestFunction(TypedDict):
    """The longest function of a file."""

    name: str
    line: int
    lines: int


class FileIndex(TypedDict):
    """What one source file holds."""

    path: str
    lines: int
    classes: int
    functions: int
    imports: list[str]
    longest: LongestFunction | None


def index_source(root: str, path: str) -> FileIndex:
    """Return the index of one file below ``root``. Raises ``SyntaxError`` or ``ValueError`` where it doesn't parse."""
    with tokenize.open(Path(root, path)) as file:
        text = file.read()
    nodes = list(ast.walk(ast.parse(text)))
    functions = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    longest = max(functions, key=lambda node: (_length(node), -node.lineno), default=None)
    return {
        "path": path,
        "lines": text.count("\n"),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
        "functions": len(functions),
        "imports": sorted(_imports(nodes)),
        "longest": None
        if longest is None
        else {"name": longest.name, "line": longest.lineno, "lines": _length(longest)},
    }


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _imports(nodes: list[ast.AST]) -> set[str]:
    direct = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    indirect = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return direct | indirect


@boost("stdlib.index", results=True, concurrency=4)
def index_file(root: str, path: str) -> FileIndex:
    """Index one file; one that doesn't parse becomes a dead letter that says why."""
    _note("start")
    try:
        return index_source(root, path)
    except (SyntaxError, ValueError) as error:
        raise Reject(f"does not parse: {error}") from error
    finally:
        _note("end")


def _note(event: str) -> None:
    """Write down that this job started or ended here, for the demo's proof of what ran how often."""
    ledger = os.environ.get("STDLIB_INDEX_LEDGER")
    if ledger:
        line = json.dumps({"event": event, "job": current.id, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())  # one write a line: whole, or not at all
        finally:
            os.close(descriptor)
