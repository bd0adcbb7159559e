"""`fuzzyclip doctor`: what works here, and what to do about what does not."""

from pathlib import Path
from typing import Annotated

import typer

from fuzzyclip.cli.options import Signature, VerifyKey, echo_json


def doctor(
    model: Annotated[
        Path | None, typer.Option(help="Directory of a trained model to look at too.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of datasets. (default: data/raw, if it is there)"),
    ] = None,
    verify_key: VerifyKey = None,
    signature: Signature = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Check versions, device, weights, data and their licences, disk, and encode one image.

    Downloads nothing. Ends with 0 if nothing failed, else with 1; warnings do not count.
    """
    from dataclasses import asdict

    from fuzzyclip.health import examine, judge

    checks = examine(model, data, verify_key, signature)
    status = judge(checks)
    if as_json:
        report = {"status": status, "checks": [asdict(check) for check in checks]}
        echo_json(report, indent=2)
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            typer.echo(f"{check.status:5} {check.name:{width}}  {check.found}")
            if check.advice:
                typer.echo(f"{'':{width + 6}}  -> {check.advice}")
        counts = {kind: sum(c.status == kind for c in checks) for kind in ("ok", "warn", "fail")}
        typer.echo(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    raise typer.Exit(status == "fail")
