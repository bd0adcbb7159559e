"""Which modules of ours a module reaches, read from the source."""

import ast
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Reached by name alone: a stage depends on its own dataset's or method's module.
REGISTRIES = ("fuzzyclip/datasets/__init__.py", "fuzzyclip/baselines/registry.py")


def find_module(name):
    """Path of a module of ours, relative to the checkout, or None."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.relative_to(ROOT).as_posix()
    return None


@cache
def list_names(path):
    """All names that a file imports, also inside functions; not what only types need."""
    names = set()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in {*ast.walk(tree)} - typing:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def list_imports(path):
    """Modules of ours that a file imports."""
    return {module for name in list_names(path) if (module := find_module(name))}


def list_external(path):
    """Top-level names of packages of others that a file imports."""
    tops = {name.split(".")[0] for name in list_names(path)}
    return tops - {"fuzzyclip", "stages", "tools", "benchmarks"} - sys.stdlib_module_names


def close(*start, stop=()):
    """All modules of ours that files reach, and they themselves; registries are not followed.

    Modules of `stop` are left out, with what they alone reach.
    """
    seen, todo = set(), [*start]
    while todo:
        module = todo.pop()
        if module not in seen and module not in stop:
            seen.add(module)
            todo += () if module in REGISTRIES else list_imports(module)
    return seen
