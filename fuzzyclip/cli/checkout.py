"""Commands of a checkout's own pipeline: the library knows no stage and hands over."""

from pathlib import Path

import typer

CHECKOUT = {"allow_extra_args": True, "ignore_unknown_options": True}


def tables(context: typer.Context) -> None:
    """The paper's tables and figures, each by one command; run in a checkout."""
    _call_checkout(context.args)


def compare(context: typer.Context) -> None:
    """Two results side by side as an HTML page: A [B] [--out FILE], revisions or experiments."""
    _call_checkout(["report", *context.args])


def verify() -> None:
    """Compare finished runs in the paper's setting with what is known of OpenAI's weights."""
    _call_checkout(["verify"])


def _call_checkout(arguments: list[str]) -> None:
    """Run the experiments' own command in this checkout, and end with its exit code."""
    import subprocess
    import sys

    if not Path("stages/experiments").is_dir():
        typer.echo("this needs the pipeline: change into a checkout of it", err=True)
        raise typer.Exit(2)
    command = [sys.executable, "-m", "stages.experiments", *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
