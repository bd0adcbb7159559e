"""Archives of datasets: zip files, plain or in one another, and tar files of every packing."""

import hashlib
import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from fuzzyclip.datasets.fetching.extract import extract_archive
from tools.fuzz.kind import Kind
from tools.fuzz.mutate import TEXTS, mutate_bytes

FILES = {
    f"nut/{name}": hashlib.sha256(name.encode()).digest() * (size + 1)
    for size, name in enumerate(
        ("train/good/0.png", "test/good/0.png", "test/hole/ä.png", "readme")
    )
}
#: Packings without a check sum of all contents.
UNSUMMED = ("tar",)


class Archives(Kind):
    """One archive; its members' names and contents are known."""

    def prepare(self, folder: Path) -> None:
        del folder
        self.contents = {
            "zip": _zip(FILES, zipfile.ZIP_DEFLATED),
            "stored": _zip(FILES, zipfile.ZIP_STORED),
            "nested": _zip({"nut.zip": _zip(FILES, zipfile.ZIP_DEFLATED), "readme": b"x"}),
            "tar": _tar(FILES, "w"),
            "tar.gz": _tar(FILES, "w:gz"),
            "tar.bz2": _tar(FILES, "w:bz2"),
            "tar.xz": _tar(FILES, "w:xz"),
        }

    def mutate(self, rng: random.Random, place: Path) -> None:
        kind = rng.choice([*self.contents])
        if rng.random() < 0.15:
            content = _write_odd(rng, kind)
            kind = f"odd-{kind}"
        else:
            content = mutate_bytes(rng, self.contents[kind])
        (place / f"{kind}.archive").write_bytes(content)

    def read(self, place: Path) -> Path:
        (path,) = place.iterdir()
        extract_archive(path, place / "out" / "tree")
        return place / "out" / "tree"

    def find_fault(self, place: Path, content: Path) -> str:
        """Nothing beside the tree; of what is under check sums the same names and contents."""
        (path,) = place.glob("*.archive")
        if others := [each for each in (place / "out").iterdir() if each != content]:
            return f"left behind: {others[0].name}"
        kind = path.name.removesuffix(".archive")
        if kind.startswith("odd-") or kind in UNSUMMED:
            return ""
        made = {
            each.relative_to(content).as_posix(): each.read_bytes()
            for each in content.rglob("*")
            if each.is_file()
        }
        whole = (
            FILES
            if kind != "nested"
            else {f"nut/{n}": c for n, c in FILES.items()} | {"readme": b"x"}
        )
        if other := sorted(made.keys() ^ whole.keys()):
            return f"{kind}: {other[:3]} on one side alone"
        differing = [name for name, own in made.items() if own != whole[name]]
        return f"{kind}: {differing[0]} has other content" if differing else ""


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def _tar(files: dict[str, bytes], mode: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _write_odd(rng: random.Random, kind: str) -> bytes:
    """A whole archive with a member that may have an odd name, or none of its own."""
    names = [*FILES, *(rng.choice(TEXTS) or "x" for _ in range(2)), *rng.sample([*FILES], 1)]
    rng.shuffle(names)
    stream = io.BytesIO()
    if kind in ("zip", "stored", "nested"):
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), FILES.get(name, b"odd"))
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = rng.choice((tarfile.REGTYPE,) * 6 + (tarfile.SYMTYPE, tarfile.DIRTYPE))
            info.linkname = rng.choice(("/etc/passwd", "../../x", "readme"))
            content = FILES.get(name, b"odd") if info.type == tarfile.REGTYPE else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()
