"""A dataset of one category in one archive, made here."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

from fuzzyclip.datasets.base.layouts import mvtec_lister
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol, SplitCounts
from fuzzyclip.datasets.fetching.fetch import fetch_dataset

FILES = {"nut/test/good/000.png": b"a", "nut/test/hole/000.png": b"b", "readme.txt": b"c"}


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def toy(data: bytes | None = None, urls: tuple[str, ...] = ()) -> DatasetSpec:
    """A dataset of one category in one archive, with the checksum of `data`."""
    digest = hashlib.sha256(data).hexdigest() if data is not None else None
    return DatasetSpec(
        name="toy",
        title="Toy",
        page="https://example.org/toy",
        licence="CC0",
        archives=(Archive("toy.zip", urls, digest),),
        categories={"nut": "nut"},
        protocols={"official": Protocol("all", mvtec_lister(), {"nut": SplitCounts(0, 1, 1)})},
        instructions="Ask the authors.",
    )


def fetch(spec: DatasetSpec, out_dir: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"archives_dir": None, "sha256": None}
    options |= {"allow_unverified": False, "download": False}
    return fetch_dataset(spec, out_dir, **(options | changes))


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
