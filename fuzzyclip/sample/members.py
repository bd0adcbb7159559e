"""Members of the sample's archives: encoded pictures, packed so that a seed fixes the bytes."""

import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.utils.files import replace_file

Member = tuple[str, bytes]  # name in the archive, content
ZIP_TIME = (2020, 1, 1, 0, 0, 0)
TAR_TIME = 1577836800  # the same moment, in seconds
JPEG_QUALITY = 95
EFFORT = 1  # of PNG and zip compression: drawn noise hardly shrinks, whatever the time spent


def encode_image(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """Encode (H, W) gray or (H, W, 3) colour pixels in the format of a file name suffix.

    Raises:
        ValueError: the suffix is none of .jpg, .png, .bmp in either case.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    match suffix.lower():
        case ".jpg":
            image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        case ".png":
            image.save(buffer, "PNG", compress_level=EFFORT)
        case ".bmp":
            image.save(buffer, "BMP")
        case _:
            raise ValueError(f"no encoder for {suffix!r} files")
    return buffer.getvalue()


def to_gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of a colour picture."""
    return np.asarray(Image.fromarray(pixels).convert("L"))  # (H, W, 3) -> (H, W)


def zip_members(members: Iterable[Member]) -> bytes:
    """A zip file in memory, for archives inside archives."""
    buffer = io.BytesIO()
    _write_zip(buffer, members)
    return buffer.getvalue()


def write_archive(path: Path, members: Iterable[Member]) -> None:
    """Write a .zip, .tar or .tar.xz file through a temporary name.

    Args:
        path: archive to write; its suffix chooses the format.
        members: files in the order they are to be stored.
    """
    with replace_file(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".zip":
            _write_zip(file, members)
        elif path.suffix == ".xz":
            with lzma.LZMAFile(file, "wb", preset=0) as compressed:
                _write_tar(compressed, members)
        else:
            _write_tar(file, members)


def _write_zip(file: IO[bytes], members: Iterable[Member]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix on every system, for equal bytes
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content, compresslevel=EFFORT)


def _write_tar(file: IO[bytes], members: Iterable[Member]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), TAR_TIME, 0o644
            archive.addfile(info, io.BytesIO(content))
