"""Which modules of ours a module reaches, read from the source: what its results depend on."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Arguments, paths, ranges of settings, logging, safe writing, threads, copies: edits change no
#: result, so no stage needs to depend on them.
PLUMBING = frozenset(
    {
        "fuzzyclip/utils/files.py",
        "fuzzyclip/utils/half_files.py",
        "fuzzyclip/utils/memory.py",
        "fuzzyclip/utils/prefetch.py",
        "fuzzyclip/utils/ranges.py",
        "fuzzyclip/distributed/engine.py",
        "fuzzyclip/utils/schemas.py",
        "fuzzyclip/clip/imports.py",
        "fuzzyclip/settings.py",
        "fuzzyclip/utils/transfers.py",
        "stages/__init__.py",
        "stages/earlier.py",
        "stages/params.py",
        "stages/paths.py",
        "stages/run.py",
        "stages/schema.py",
        "stages/values.py",
    }
)
#: Reached by name through the registry; a stage depends on its own dataset's module.
REGISTRY = "fuzzyclip/datasets/__init__.py"


def find_module(name: str) -> str | None:
    """Path of a module of ours, relative to the checkout, or None."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.relative_to(ROOT).as_posix()
    return None


@cache
def list_imports(path: str) -> frozenset[str]:
    """Modules of ours that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {module for name in names if (module := find_module(name))}
    return frozenset(found)


def close(*start: str) -> set[str]:
    """All modules of ours that files reach, and they themselves; the registry is not followed."""
    seen: set[str] = set()
    todo = [*start]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        if module != REGISTRY:
            todo += list_imports(module)
    return seen


def leave_plumbing(modules: Iterable[str]) -> list[str]:
    """Those of the modules that results depend on, sorted."""
    return sorted(
        module for module in set(modules) - PLUMBING if not module.endswith("__init__.py")
    )
