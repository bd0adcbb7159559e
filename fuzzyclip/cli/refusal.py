"""The end of a command where a person can mend what went wrong."""

import typer


class Refusal:
    """Ends the command with the message alone, where the message says it all."""

    def __enter__(self) -> None:
        """Nothing to open."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Turn an error that a person can mend into a message and exit code 1."""
        if isinstance(error, ValueError | OSError):
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
