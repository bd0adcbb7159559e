"""What a file imports; the graph of our own modules is the pipeline's."""

import ast

from stages.imports import PLUMBING, REGISTRY, ROOT, close, leave_plumbing, list_imports

__all__ = [
    "PLUMBING", "REGISTRY", "ROOT", "close", "leave_plumbing", "list_external", "list_imports",
]  # fmt: skip


def list_external(path):
    """Top-level packages a file imports that are not ours."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - {"fuzzyclip", "stages"}
