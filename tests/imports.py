"""The import graph of stages and library, read from the source."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Arguments, paths, logging, safe writing, threads, copies: edits change no result, so no stage
#: depends on them.
PLUMBING = {
    "fuzzyclip/files.py",
    "fuzzyclip/memory.py",
    "fuzzyclip/prefetch.py",
    "fuzzyclip/ray_engine.py",
    "fuzzyclip/clip/transfers.py",
    "stages/__init__.py",
    "stages/earlier.py",
    "stages/params.py",
    "stages/paths.py",
    "stages/run.py",
    "stages/schema.py",
}
#: Reached by name through the registry; a stage depends on its own dataset's module.
REGISTRY = "fuzzyclip/datasets/__init__.py"


def find_module(name):
    """Repository path of a module of ours, or None."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.relative_to(ROOT).as_posix()
    return None


@cache
def list_imports(path):
    """Modules of ours that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {module for name in names if (module := find_module(name))}
    return frozenset(found)


def list_external(path):
    """Top-level packages a file imports that are not ours."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - {"fuzzyclip", "stages"}


def close(path, stop=frozenset()):
    """All modules of ours that a file reaches; the registry is not followed."""
    seen, todo = set(), [path]
    while todo:
        module = todo.pop()
        if module in seen or module in stop:
            continue
        seen.add(module)
        if module != REGISTRY:
            todo += list_imports(module)
    return seen
