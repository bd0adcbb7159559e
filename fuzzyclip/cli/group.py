"""A group of commands: how each of them writes, and how it ends where something is wrong."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from fuzzyclip.utils.endings import ending


class Commands(TyperGroup):
    """All commands, on a terminal or pipe of any encoding."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Characters that the output has no code for are written as escapes, not as a fault."""
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="backslashreplace")
        return super().main(*arguments, **settings)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own base
        """A command's error becomes a line and an exit code, see `fuzzyclip.utils.endings`."""
        with ending():
            return super().invoke(ctx)
