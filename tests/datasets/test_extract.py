"""Extraction: hostile, broken and oversized archives are refused with nothing left behind."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fuzzyclip.datasets.extract import extract_archive
from fuzzyclip.datasets.spec import DatasetError


def files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(*members: tarfile.TarInfo, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 1) -> Any:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = size if kind == tarfile.REGTYPE else 0
    return member


def zip_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("nut/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


HOSTILE = {
    "tar up": tar_bytes(tar_member("nut/../../evil")),
    "tar absolute": tar_bytes(tar_member("/tmp/evil")),
    "tar symlink": tar_bytes(tar_member("nut/link", tarfile.SYMTYPE, "/etc")),
    "tar hard link": tar_bytes(tar_member("a"), tar_member("b", tarfile.LNKTYPE, "a")),
    "tar device": tar_bytes(tar_member("nut/null", tarfile.CHRTYPE)),
    "tar fifo": tar_bytes(tar_member("nut/fifo", tarfile.FIFOTYPE)),
    "tar twice": tar_bytes(tar_member("a"), tar_member("a")),
    "tar file as folder": tar_bytes(tar_member("a"), tar_member("a/b")),
    "tar bomb": tar_bytes(tar_member("zeros", size=3_000_000), mode="w:xz"),
    "zip up": zip_bytes({"../evil": b"x"}),
    "zip absolute": zip_bytes({"/tmp/evil": b"x"}),
    "zip drive": zip_bytes({"C:/evil": b"x"}),
    "zip backslash": zip_bytes({"nut\\..\\..\\evil": b"x"}),
    "zip link": zip_link(),
    "zip bomb": zip_bytes({"zeros": bytes(3_000_000)}),
    "zip of bombs": zip_bytes(
        {f"{i}.zip": zip_bytes({f"{i}": bytes(900_000)}) for i in range(3)}  # each is small enough
    ),
    "zip in zip in zip": zip_bytes({"a.zip": zip_bytes({"b.zip": zip_bytes({"c": b""})})}),
    "zip with many": zip_bytes({str(i): b"" for i in range(101)}),
    "web page": b"<!doctype html><p>Please log in</p>",
    "cut short": zip_bytes({"a": b"x"})[:-40],
    "tar cut short": tar_bytes(tar_member("a", size=50_000))[:20_000],
    "damaged": zip_bytes({"a": b"x" * 50}, zipfile.ZIP_STORED).replace(b"xx", b"xy", 1),
    "empty": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "toy.zip"
    archive.parent.mkdir()
    archive.write_bytes(HOSTILE[kind])
    with pytest.raises(DatasetError, match=r"toy\.zip"):
        extract_archive(archive, tmp_path / "out/tree", max_members=100, max_bytes=2_000_000)
    assert files_below(tmp_path) == {"in/toy.zip": HOSTILE[kind]}
    assert not list((tmp_path / "out").iterdir())
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_of_any_compression(mode: str, tmp_path: Path) -> None:
    (tmp_path / "toy").write_bytes(
        tar_bytes(tar_member("nut", tarfile.DIRTYPE), tar_member("nut/a", size=2), mode=mode)
    )
    extract_archive(tmp_path / "toy", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"nut/a": b"xx"}


def test_zip_files_inside_are_extracted_in_place(tmp_path: Path) -> None:
    inner = zip_bytes({"a.png": b"1"})
    (tmp_path / "toy.zip").write_bytes(zip_bytes({"top/nut.zip": inner, "top/nut/b.png": b"2"}))
    extract_archive(tmp_path / "toy.zip", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"top/nut/b.png": b"2", "top/nut_/a.png": b"1"}


def test_existing_folder_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        extract_archive(tmp_path / "toy.zip", tmp_path)
