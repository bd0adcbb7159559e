"""Signatures of a folder: who signed it, and that no file of it has changed since.

The format is that of OpenSSF's Model Signing: digests of all files, signed with an elliptic key,
in a Sigstore bundle; its own command (`model_signing verify key`) reads what is made here. Nothing
asks a network. The packages come with `pip install 'fuzzyclip[sign]'` and are imported where they
are used.

A folder is any: a model's directory, files of an export, a served model.
"""

import base64
import importlib
import json
import os
from pathlib import Path
from typing import Any

from fuzzyclip.model.card import ModelError
from fuzzyclip.utils.files import compute_sha256, replace_file, show_name
from fuzzyclip.utils.tree import DatasetError, read_tree

#: Where a folder's signature lies, if it lies in it; the only file that no signature covers.
SIGNATURE = "model.sig"
#: Bytes of a signature at most: it has a line a file.
LARGEST_SIGNATURE = 32_000_000
#: What the format takes, by cryptography's names and by the usual ones.
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
MAX_SHOWN = 20  # differences in one message
EXTRA = "pip install 'fuzzyclip[sign]'"


class SignatureError(ModelError):
    """A folder is not as it was signed, or a key or signature can not be used."""


def sign_folder(
    folder: Path, key: Path, *, signature: Path | None = None, password: str | None = None
) -> Path:
    """Sign all files of a folder; the signature appears whole, or the old one stays.

    Args:
        folder: its files, those behind links too, are read once.
        key: private elliptic key, PEM.
        signature: where it goes; None for `model.sig` in the folder.
        password: of the key, if it has one.

    Returns:
        The signature's file.

    Raises:
        SignatureError: no such folder, no files, or a key that can not be used.
        ModelError: the packages are missing.
        OSError: a file can not be read or written.
    """
    hashing, signing = _import("model_signing.hashing"), _import("model_signing.signing")
    read_private_key(key, password)
    if _is_inside(key, folder):
        raise SignatureError(
            f"{key}: the private key lies in {folder}, which it would go away with"
        )
    place = signature or folder / SIGNATURE
    ignored = _list_ignored(folder, place)
    _list_files(folder, ignored)
    config = signing.Config().use_elliptic_key_signer(
        private_key=key, password=password.encode() if password else None
    )
    config.set_hashing_config(_choose_hashing(hashing, ignored))
    with replace_file(place) as temporary:
        # The library looks at the folder before it writes, so the temporary file is not part of it.
        config.sign(folder, temporary)
    return place


def verify_folder(folder: Path, key: Path, *, signature: Path | None = None) -> list[str]:
    """Names of a folder's files, which are exactly those that the key's owner signed.

    Args:
        folder: nothing in it is parsed.
        key: public elliptic key, PEM. It must not come from the folder.
        signature: its file; None for `model.sig` in the folder.

    Raises:
        SignatureError: not signed, by another key, or a file is changed, added, missing; names it.
        ModelError: the packages are missing.
        OSError: a file can not be read.
    """
    hashing, verifying = _import("model_signing.hashing"), _import("model_signing.verifying")
    read_public_key(key)
    if _is_inside(key, folder):
        raise SignatureError(
            f"{key}: who can change {folder} can change this key too; keep it elsewhere"
        )
    place = signature or folder / SIGNATURE
    ignored = _list_ignored(folder, place)
    names = _list_files(folder, ignored)
    if not place.is_file():
        raise SignatureError(
            f"{folder} is not signed: {place} is missing (fuzzyclip sign makes it; --signature "
            "names one elsewhere)"
        )
    if (size := place.stat().st_size) > LARGEST_SIGNATURE:
        raise SignatureError(f"{place}: {size:,} bytes, too many for a signature")
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    config.set_hashing_config(_choose_hashing(hashing, ignored))
    try:
        config.verify(folder, place)
    except OSError:
        raise
    except Exception as error:  # of JSON, base64, pydantic, cryptography and the library's own
        raise SignatureError(_explain(error, folder, place, names)) from error
    # A signature may say itself that it leaves files out, and the library leaves a folder out that
    # is called like one of them.
    if uncovered := sorted(set(names) - set(_read_signed(place))):
        raise SignatureError(
            _say_differences(folder, [f"{name} is not covered" for name in uncovered])
        )
    return names


def check_signature(folder: Path, key: Path | None, signature: Path | None = None) -> None:
    """Verify a folder, where a key is given; a signature without one is refused.

    Raises:
        SignatureError, ModelError, OSError: as `verify_folder`.
    """
    if key is not None:
        verify_folder(folder, key, signature=signature)
    elif signature is not None:
        raise SignatureError(f"{signature}: a signature says nothing without a key to verify it by")


def make_key_pair(private: Path) -> Path:
    """Write a new pair of keys: the private one, readable by its owner alone, and the public one.

    Returns:
        The public key's file: `line.pub.pem` beside `line.pem`.

    Raises:
        SignatureError: one of the files exists.
        ModelError: the packages are missing.
    """
    serialization = _import("cryptography.hazmat.primitives.serialization")
    elliptic = _import("cryptography.hazmat.primitives.asymmetric.ec")
    public = private.with_name(f"{private.stem}.pub{private.suffix or '.pem'}")
    for path in (private, public):
        if path.exists():
            raise SignatureError(f"{path} exists already; a key is never replaced. Name another")
    key, pem = elliptic.generate_private_key(elliptic.SECP256R1()), serialization.Encoding.PEM
    contents = {
        private: key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        public: key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
    }
    for path, content in contents.items():
        mode = 0o600 if path == private else 0o644
        with replace_file(path) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    return public


def read_private_key(path: Path, password: str | None = None) -> Any:
    """A private elliptic key, as cryptography has it.

    Raises:
        SignatureError: it is none, of another kind, or the password does not open it.
    """
    serialization = _import("cryptography.hazmat.primitives.serialization")
    content = _read_pem(path)
    if b"PUBLIC KEY-----" in content:
        raise SignatureError(f"{path}: the public key; signing takes the private one")
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
    except TypeError as error:  # a password that is missing, or one for a key without
        raise SignatureError(
            f"{path}: the key has {'no' if password else 'a'} password "
            f"({'unset' if password else 'set'} FUZZYCLIP_KEY_PASSWORD)"
        ) from error
    except Exception as error:  # cryptography has several, and no common class
        reason = "or the password is another" if password else "no private key in PEM"
        raise SignatureError(f"{path}: not readable as a private key, {reason}") from error
    return _check_curve(path, key)


def read_public_key(path: Path) -> Any:
    """A public elliptic key, as cryptography has it.

    Raises:
        SignatureError: it is none, or of another kind.
    """
    serialization = _import("cryptography.hazmat.primitives.serialization")
    content = _read_pem(path)
    if b"PRIVATE KEY-----" in content:
        raise SignatureError(
            f"{path}: a private key; verifying takes the public one, and the private one should "
            "not be where a model is used"
        )
    try:
        key = serialization.load_pem_public_key(content)
    except Exception as error:  # as above
        raise SignatureError(f"{path}: not readable as a public key in PEM") from error
    return _check_curve(path, key)


def _read_pem(path: Path) -> bytes:
    """Content of a key's file, which is small."""
    if not path.is_file():
        raise SignatureError(f"{path}: no such key (fuzzyclip sign --make-key makes a pair)")
    with path.open("rb") as file:
        return file.read(100_000)


def _check_curve(path: Path, key: Any) -> Any:
    """The key, if signatures of this format can be made with it."""
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__.strip("_"))
    if curve not in CURVES:
        raise SignatureError(
            f"{path}: a key of the kind {curve}; give an elliptic one of "
            f"{', '.join(CURVES.values())}"
        )
    return key


def _list_ignored(folder: Path, place: Path) -> list[str]:
    """Names in the folder that are no part of what is signed: signatures."""
    ignored = [SIGNATURE]
    if _is_inside(place, folder):
        ignored.append(place.resolve().relative_to(folder.resolve()).as_posix())
    return list(dict.fromkeys(ignored))


def _list_files(folder: Path, ignored: list[str]) -> list[str]:
    """POSIX paths of the signed files; refuses what can not be signed: pipes, links to folders."""
    if not folder.is_dir():
        kind = "a file; name its folder" if folder.exists() else "no such folder"
        raise SignatureError(f"{show_name(folder)}: {kind}")
    try:
        names = [name for name in read_tree(folder, linked=True).files if name not in ignored]
    except DatasetError as error:
        raise SignatureError(str(error)) from error
    if not names:
        raise SignatureError(f"{folder}: no files to sign or verify in it")
    return names


def _choose_hashing(hashing: Any, ignored: list[str]) -> Any:
    """SHA-256 a file, of git's files too, and of those behind links, as DVC's cache has them."""
    config = hashing.Config().use_file_serialization(
        hashing_algorithm="sha256", allow_symlinks=True
    )
    config.set_allow_symlinks(True)
    return config.set_ignored_paths(paths=ignored, ignore_git_paths=False)


def _explain(error: Exception, folder: Path, place: Path, names: list[str]) -> str:
    """Why a folder was not verified, with the files where they are the reason."""
    if "Key mismatch" in str(error) or type(error).__name__ == "InvalidSignature":
        return f"{place}: signed with another key than the one given, or altered since"
    if not str(error).startswith("Signature mismatch"):
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        return f"{place}: not a signature of OpenSSF's format that a key made ({reason})"
    return _say_differences(folder, _list_differences(folder, place, names), str(error))


def _say_differences(folder: Path, differences: list[str], otherwise: str = "") -> str:
    shown = differences[:MAX_SHOWN]
    if len(differences) > MAX_SHOWN:
        shown.append(f"and {len(differences) - MAX_SHOWN} more")
    return f"{folder} is not as it was signed: {', '.join(shown) or otherwise}"


def _list_differences(folder: Path, place: Path, names: list[str]) -> list[str]:
    """Files that are not as a signature, whose own bytes were verified, says they are."""
    signed = _read_signed(place)
    if not signed:
        return []
    changed = [
        name
        for name in names
        if name in signed
        and signed[name]["algorithm"] == "sha256"
        and compute_sha256(folder / name) != signed[name]["digest"]
    ]
    return [
        *(f"{name} is changed" for name in changed),
        *(f"{name} is missing" for name in sorted(set(signed) - set(names))),
        *(f"{name} is added" for name in sorted(set(names) - set(signed))),
    ]


def _read_signed(place: Path) -> dict[str, Any]:
    """What a signature, whose own bytes were verified, says of each file.

    Empty where it is of parts of files, as other tools may sign them: the library's own words do.
    """
    payload = json.loads(
        base64.b64decode(json.loads(place.read_bytes())["dsseEnvelope"]["payload"])
    )
    predicate = payload.get("predicate", {})
    if predicate.get("serialization", {}).get("method") != "files":
        return {}
    return {entry["name"]: entry for entry in predicate["resources"]}


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _import(name: str) -> Any:
    """A module of the packages that `fuzzyclip[sign]` brings.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"signatures need a package ({error}): {EXTRA}") from error
