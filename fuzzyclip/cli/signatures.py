"""`fuzzyclip sign` and `fuzzyclip verify`: who made a model, and whether it is still that one."""

import os
from pathlib import Path
from typing import Annotated

import typer

#: The password of a private key that has one; an option would show it in the list of processes.
PASSWORD = "FUZZYCLIP_KEY_PASSWORD"

Place = Annotated[
    Path | None,
    typer.Option(
        envvar="FUZZYCLIP_SIGNATURE",
        help="The signature's file, such as for a folder that can not be written. "
        "(default: model.sig in the folder)",
    ),
]


def sign(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", help="A model's directory, or a folder of exported files."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Your private key: elliptic (P-256, P-384, P-521), PEM."),
    ] = None,
    signature: Place = None,
    make_key: Annotated[
        Path | None,
        typer.Option(
            help="Make a pair of keys first: FILE.pem, to be kept secret, and FILE.pub.pem, to be "
            "given away. Without a folder that is all."
        ),
    ] = None,
) -> None:
    """Sign every file of a model's directory with a key of yours, offline.

    The signature is in the format of OpenSSF's Model Signing. A key with a password takes it from
    the variable FUZZYCLIP_KEY_PASSWORD.
    """
    from fuzzyclip.model.signing import make_key_pair, sign_folder

    if make_key is not None:
        if key is not None:
            raise typer.BadParameter("sign with the new key or a given one", param_hint="--key")
        public, key = make_key_pair(make_key), make_key
        typer.echo(f"{make_key} written: your private key; keep it secret, and out of models")
        typer.echo(f"{public} written: the public key, for those who use your models")
        if model is None:
            return
    if model is None:
        raise typer.BadParameter("name the folder to sign", param_hint="MODEL")
    if key is None:
        raise typer.BadParameter(
            "give your private key; `fuzzyclip sign --make-key mine.pem` makes one",
            param_hint="--key",
        )
    place = sign_folder(model, key, signature=signature, password=os.environ.get(PASSWORD) or None)
    typer.echo(f"{place} written")


def verify(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A signed folder: a model's directory, exported files; or MLflow's address.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(envvar="FUZZYCLIP_VERIFY_KEY", help="The signer's public key, PEM."),
    ] = None,
    signature: Place = None,
) -> None:
    """Check that a folder is, to the byte, what the owner of a key signed; offline.

    A file that is changed, added, missing or renamed is named, and the exit code is 1. Nothing in
    the folder is parsed. (Results against the paper's numbers: `fuzzyclip tables verify`.)
    """
    if model is None:
        raise typer.BadParameter(
            "name the signed folder. To compare runs with known numbers: fuzzyclip tables verify",
            param_hint="MODEL",
        )
    if key is None:
        raise typer.BadParameter("give the signer's public key", param_hint="--key")
    from fuzzyclip.model.signing import verify_folder

    names = verify_folder(_find(model), key, signature=signature)
    files = "the one file is" if len(names) == 1 else f"all {len(names)} files are"
    typer.echo(f"{model}: {files} as the owner of {key} signed")


def _find(model: str) -> Path:
    """The folder; what fetches it from MLflow takes seconds to import."""
    if Path(model).exists():
        return Path(model)
    from fuzzyclip.model.directory import find_folder

    return find_folder(model)
