"""What a picture was made from: named and digested, kept in the PNG itself, compared later.

The digest of a stage's output is the MD5 that dvc.lock states; of a module the SHA-256 of what it
does, whatever its comments say; of any other file the SHA-256. All of them are known from what git
keeps, so that a clone without results can tell which picture is stale.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from fuzzyclip.utils.files import compute_sha256, replace_file
from stages import paths
from stages.yaml_file import read_yaml

#: Where the pictures lie, and the command that makes them.
FOLDER = Path("docs/images")
COMMAND = "make pictures"
#: Keyword of the PNG's text that holds digests by source, as JSON.
KEYWORD = "made from"


class PictureError(RuntimeError):
    """A picture can not be made; says what is missing and how it is had."""


def read_outputs(root: Path) -> dict[str, str]:
    """MD5 by path of every stage's outputs, as dvc.lock states them."""
    stages = read_yaml(root / paths.LOCK)["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", ())]
    return {out["path"]: out["md5"] for out in outs}


def digest_sources(root: Path, outputs: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Digests of sources by name: paths in a checkout, of stages' outputs or committed files.

    Args:
        root: the checkout.
        outputs: as `read_outputs` gives them.
        names: of the sources.

    Raises:
        PictureError: one is neither; names it.
    """
    digests = {}
    for name in names:
        if name in outputs:
            digests[name] = f"md5:{outputs[name]}"
        elif not (root / name).is_file():
            raise PictureError(f"{name} is no file, and no output that dvc.lock knows")
        elif name.endswith(".py"):
            digests[name] = f"code:{digest_code(root / name)}"
        else:
            digests[name] = f"sha256:{compute_sha256(root / name)}"
    return digests


def check_outputs(root: Path, outputs: Mapping[str, str], names: Iterable[str]) -> None:
    """Compare the outputs that are there with what dvc.lock states of them.

    Raises:
        PictureError: one is missing or another; names it.
    """
    for name in (name for name in names if name in outputs):
        if not (root / name).exists():
            raise PictureError(f"{name} is not there: `dvc repro track` first")
        if digest_output(root / name) != outputs[name]:
            raise PictureError(
                f"{name} is not what dvc.lock states: `dvc repro track` first, or `dvc checkout` "
                "where an experiment left it"
            )


def digest_output(path: Path) -> str:
    """MD5 of a file or folder as DVC computes it: of a folder over its files' paths and digests."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    entries = [{"md5": digest_output(files[name]), "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir"


def digest_code(path: Path) -> str:
    """SHA-256 of a module's syntax tree without docstrings, the same by every version of Python."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return hashlib.sha256(repr(_outline(tree)).encode()).hexdigest()


def _outline(part: Any) -> Any:
    """A part of a syntax tree as tuples, without empty fields, which new versions of Python add."""
    if isinstance(part, list):
        return tuple(_outline(each) for each in part if not _is_docstring(each))
    if not isinstance(part, ast.AST):
        return part
    fields = [(name, value) for name, value in ast.iter_fields(part) if value not in (None, [])]
    return type(part).__name__, tuple((name, _outline(value)) for name, value in fields)


def _is_docstring(part: Any) -> bool:
    value = part.value if isinstance(part, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def save_picture(image: Image.Image, path: Path, sources: Mapping[str, str]) -> None:
    """Write a PNG that says what it was made from; without dates."""
    text = PngImagePlugin.PngInfo()
    text.add_text(KEYWORD, json.dumps(dict(sources), sort_keys=True))
    with replace_file(path) as temporary:
        image.save(temporary, "PNG", optimize=True, pnginfo=text)


def read_sources(path: Path) -> dict[str, str]:
    """What a picture says that it was made from; nothing where it says nothing."""
    with Image.open(path) as image:
        text = image.info.get(KEYWORD)
    return dict(json.loads(text)) if isinstance(text, str) else {}


def find_stale(root: Path, pictures: Mapping[str, Iterable[str]]) -> list[str]:
    """A line for each picture that its sources would not give today: its path, and why.

    Args:
        root: the checkout.
        pictures: names of sources by the picture's name.
    """
    lines, outputs = [], read_outputs(root)
    for name, sources in pictures.items():
        if reason := _find_fault(root, outputs, root / FOLDER / f"{name}.png", sources):
            lines.append(f"{FOLDER / name}.png: {reason}")
    others = sorted(path.name for path in (root / FOLDER).glob("*.png"))
    others = [name for name in others if name.removesuffix(".png") not in pictures]
    return lines + [f"{FOLDER / name}: `{COMMAND}` does not make it" for name in others]


def _find_fault(root: Path, outputs: Mapping[str, str], path: Path, names: Iterable[str]) -> str:
    """Why a picture is stale; empty for one that is not."""
    if not path.is_file():
        return "it is not there"
    try:
        today = digest_sources(root, outputs, names)
    except PictureError as error:
        return str(error)
    kept = read_sources(path)
    if not kept:
        return "it does not say what it was made from"
    changed = [name for name in {**today, **kept} if today.get(name) != kept.get(name)]
    return f"made from another {', '.join(changed)}" if changed else ""
