"""Extraction: hostile, broken and oversized archives are refused with nothing left behind."""

import io
import random
import re
import shutil
import stat
import subprocess
import tarfile
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import try_examples
from toy_archives import files_below, zip_bytes

from fuzzyclip.datasets.fetching import extract
from fuzzyclip.datasets.fetching.extract import MAX_PADDING, extract_archive
from fuzzyclip.utils.tree import DatasetError


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


ZIP_LINK = zipfile.ZipInfo("nut/link")
ZIP_LINK.external_attr = (stat.S_IFLNK | 0o777) << 16
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
    "zip drive with backslashes": zip_bytes({"C:\\evil": b"x"}),
    "zip share": zip_bytes({"\\\\server\\share\\evil": b"x"}),
    "zip absolute with a backslash": zip_bytes({"\\tmp\\evil": b"x"}),
    "zip up with both": zip_bytes({"nut/..\\../evil": b"x"}),
    "tar with backslashes": tar_bytes(tar_member("nut\\..\\..\\evil")),
    "zip but for capitals": zip_bytes({"nut/A.png": b"x", "nut/a.png": b"y"}),
    "zip but for a folder's capitals": zip_bytes({"nut/a.png": b"x", "Nut/a.png": b"y"}),
    "zip but for accents": zip_bytes({"nut/\u00fc.png": b"x", "nut/u\u0308.png": b"y"}),
    "tar but for capitals": tar_bytes(tar_member("A"), tar_member("a")),
    "zip of a long name": zip_bytes({"n" * 300: b"x"}),
    "tar of a long name": tar_bytes(tar_member("n" * 300)),
    "zip of a long path": zip_bytes({"nut/" * 1000 + "a": b"x"}),
    "tar of no UTF-8": tar_bytes(tar_member("nut/\udcff.png")),
    "zip link": zip_bytes({ZIP_LINK: b"/etc/passwd"}),
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
    "nothing but zeros": bytes(100_000),
}


def test_a_stored_zip_file_that_is_cut_after_one_within_it_is_refused(tmp_path: Path) -> None:
    inner = zip_bytes({"a.png": b"a"})
    whole = zip_bytes({"first.zip": inner, "second.txt": b"b"}, zipfile.ZIP_STORED)
    path = tmp_path / "x.zip"
    path.write_bytes(whole[: whole.index(inner) + len(inner)])
    with pytest.raises(DatasetError, match="something stands before its first file"):
        extract_archive(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


def test_a_bomb_by_ratio_is_stopped_above_the_first_gigabyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundredfold is no photograph; the first gigabyte is free, here the first 10 kB."""
    monkeypatch.setattr(extract, "ALWAYS", 10_000)
    (tmp_path / "toy").write_bytes(zip_bytes({"zeros": bytes(3_000_000)}))
    with pytest.raises(DatasetError, match="unpacks to more files or bytes"):
        extract_archive(tmp_path / "toy", tmp_path / "out")
    drawn = random.randbytes(200_000)
    (tmp_path / "toy").write_bytes(zip_bytes({"a": drawn}))
    extract_archive(tmp_path / "toy", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a": drawn}


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """As in bombs that point a thousand entries at one content."""
    content = bytearray(zip_bytes({"a": b"x" * 90, "b": b"x" * 90}, zipfile.ZIP_STORED))
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    local = content.index(b"PK\3\4", 4)
    content[30:31] = content[local + 30 : local + 31] = b"a"  # one name, so that they agree
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    content[second + 46 : second + 47] = b"a"
    (tmp_path / "toy").write_bytes(content)
    with pytest.raises(DatasetError, match="shares bytes with another one"):
        extract_archive(tmp_path / "toy", tmp_path / "out")


def test_zips_with_backslashes_have_folders(tmp_path: Path) -> None:
    files = {"nut\\": b"", "nut\\empty\\": b"", "nut\\good\\1.png": b"1", "nut/bad\\2.png": b"2"}
    (tmp_path / "toy").write_bytes(zip_bytes(files))
    extract_archive(tmp_path / "toy", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"nut/good/1.png": b"1", "nut/bad/2.png": b"2"}
    assert (tmp_path / "out/nut/empty").is_dir()


@pytest.mark.parametrize(
    ("names", "page"),
    [
        (["größe/prüfung.png", "schön.png"], "cp437"),
        (["製品/良品/1.png", "製品/不良/2.png", "傷.png"], "cp932"),
        (["größe/prüfung.png", "製品.png"], "utf-8"),
    ],
)
def test_names_in_a_code_page_without_a_word(names: list[str], page: str, tmp_path: Path) -> None:
    (tmp_path / "toy").write_bytes(zip_without_flag(dict.fromkeys(names, page)))
    extract_archive(tmp_path / "toy", tmp_path / "out")
    assert set(files_below(tmp_path / "out")) == set(names)


def zip_without_flag(pages: dict[str, str]) -> bytes:
    """A zip file as old tools write it: names in a code page, which nothing says."""
    short = {
        f"{number:03d}": name.encode(page) for number, (name, page) in enumerate(pages.items())
    }
    content = zip_bytes({f"{key}{'x' * (len(raw) - 3)}": b"" for key, raw in short.items()})
    for key, raw in short.items():
        content = content.replace(f"{key}{'x' * (len(raw) - 3)}".encode(), raw)
    return content


def test_an_encrypted_zip_and_one_packed_in_another_way_say_what_to_do(tmp_path: Path) -> None:
    whole = zip_bytes({"nut/a.png": b"secret"})
    table = whole.index(b"PK\1\2")
    locked, other = bytearray(whole), bytearray(whole)
    locked[6] |= 1
    locked[table + 8] |= 1
    other[8] = other[table + 10] = 9  # Deflate64, of Windows' own folders
    for content, reason in ((locked, "is encrypted: with its password"), (other, "number 9; ")):
        (tmp_path / "toy.zip").write_bytes(content)
        with pytest.raises(DatasetError, match=rf"toy\.zip: member 'nut/a\.png' .*{reason}"):
            extract_archive(tmp_path / "toy.zip", tmp_path / "out")


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


# --- damage: refused, or harmless

DRAWN = random.Random(0)
FILES = {
    f"nut/{kind}/{i}.png": DRAWN.randbytes(700 * i) for kind in ("good", "hole") for i in range(4)
}
FOLDERS = ("nut/", "nut/empty/")
BLOCK = tarfile.BLOCKSIZE


def make_archive(kind: str) -> bytes:
    """`FILES` and `FOLDERS` as a tar file ("", "gz", "bz2", "xz") or a zip file."""
    if kind in {"stored", "deflated"}:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        files = {**dict.fromkeys(FOLDERS, b""), **FILES}
        return zip_bytes({zipfile.ZipInfo(name): files[name] for name in files}, method)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name in FOLDERS:
            archive.addfile(tar_member(name, tarfile.DIRTYPE))
        for name, content in FILES.items():
            archive.addfile(tar_member(name, size=len(content)), io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {kind: make_archive(kind) for kind in ("", "gz", "bz2", "xz", "stored", "deflated")}
COMPRESSED = [kind for kind in ARCHIVES if kind]


def unpack(content: bytes) -> dict[str, bytes] | str:
    """The files of an archive, or why it was refused; then nothing is left of it."""
    with TemporaryDirectory() as folder:
        (archive := Path(folder) / "toy").write_bytes(content)
        reason = ""
        try:
            extract_archive(archive, Path(folder) / "out")
        except DatasetError as error:
            reason = str(error)
        if reason:
            assert reason.startswith(f"{archive}: ")
            assert list(Path(folder).iterdir()) == [archive]
            return reason
        assert (Path(folder) / "out/nut/empty").is_dir()
        return files_below(Path(folder) / "out")


def is_harmless(content: bytes) -> bool:
    result = unpack(content)
    return isinstance(result, str) or result == FILES


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_whole_archives_are_extracted(kind: str) -> None:
    assert unpack(ARCHIVES[kind]) == FILES


@pytest.mark.parametrize("kind", COMPRESSED)
@given(place=st.floats(0, 1, exclude_max=True))
@example(place=0.0)
@example(place=0.25)
@try_examples(120)
def test_a_flipped_bit_is_refused_or_changes_no_file(kind: str, place: float) -> None:
    content = ARCHIVES[kind]
    assert is_harmless(flip(content, int(place * 8 * len(content))))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_the_checksum_behind_a_compressed_tar_is_read(kind: str) -> None:
    content = ARCHIVES[kind]
    for byte in (5, 6, 7, 8):  # gzip's CRC, the end of bzip2's, within xz's last part
        assert isinstance(unpack(flip(content, 8 * (len(content) - byte))), str)


@pytest.mark.parametrize("kind", COMPRESSED)
@given(place=st.floats(0, 1, exclude_max=True))
@try_examples(40)
def test_a_cut_archive_is_refused(kind: str, place: float) -> None:
    content = ARCHIVES[kind]
    assert isinstance(unpack(content[: int(place * len(content))]), str)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_an_archive_that_lacks_its_last_bytes_is_refused(kind: str) -> None:
    for missing in range(1, 12):
        assert isinstance(unpack(ARCHIVES[kind][:-missing]), str)


def test_a_tar_cut_at_any_block_is_refused_before_its_two_last() -> None:
    content = ARCHIVES[""]
    end = len(content.rstrip(b"\0")) // BLOCK + 1  # the last file has no zeros at its end
    for block in range(end + 2):
        assert isinstance(unpack(content[: block * BLOCK]), str), block
    for block in range(end + 2, len(content) // BLOCK + 1):  # what pads it is no part of it
        assert unpack(content[: block * BLOCK]) == FILES


def find_headers(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [member.offset for member in archive]


def test_a_flipped_bit_in_any_header_of_a_tar_is_refused_or_changes_no_file() -> None:
    content = ARCHIVES[""]
    for start in find_headers(content):
        bits = random.sample(range(8 * start, 8 * (start + BLOCK)), 4)
        assert all(is_harmless(flip(content, bit)) for bit in bits)


def test_zeros_in_place_of_a_header_do_not_end_a_tar() -> None:
    content = ARCHIVES[""]
    for start in find_headers(content)[::4]:
        hole = content[:start] + bytes(BLOCK) + content[start + BLOCK :]
        assert "broken" in (reason := unpack(hole)) or "more than zeros" in reason
        reason = unpack(hole[: start + BLOCK] + bytes(MAX_PADDING + 1))  # space that was reserved
        assert "zeros behind its end" in reason or "nothing in this archive" in reason


def test_joined_tars_and_a_lone_last_block_are_refused() -> None:
    content = ARCHIVES[""]
    assert "several archives in one file" in unpack(content + content)
    end = len(content.rstrip(b"\0")) // BLOCK + 1
    assert "cut short" in unpack(content[: (end + 1) * BLOCK])


def test_a_damaged_tar_is_not_read_as_the_zip_file_at_its_end() -> None:
    inner = zip_bytes({"a.png": b"1"})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tar_member("nut", tarfile.DIRTYPE))
        archive.addfile(tar_member("nut/b.zip", size=len(inner)), io.BytesIO(inner))
    assert "no zip or tar file" in unpack(flip(buffer.getvalue(), 8 * 124))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_zip_files_table_of_zeros_empties_no_file(streamed: bool, tmp_path: Path) -> None:
    """Checksum and sizes of an entry: the right ones of an empty file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(Unseekable(buffer) if streamed else buffer, "w") as archive:
        archive.writestr("a.png", b"content")
    content = bytearray(buffer.getvalue())
    place = content.index(b"PK\1\2") + 16
    content[place : place + 12] = bytes(12)
    (tmp_path / "toy.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="damaged"):
        extract_archive(tmp_path / "toy.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_files_that_were_streamed_are_extracted(compression: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(Unseekable(buffer), "w", compression) as archive:
        for name in ("a.png", "b/c.png", "empty"):
            archive.writestr(name, b"" if name == "empty" else name.encode() * 9)
    (tmp_path / "toy.zip").write_bytes(buffer.getvalue())
    extract_archive(tmp_path / "toy.zip", tmp_path / "out")
    assert (tmp_path / "out/b/c.png").read_bytes() == b"b/c.png" * 9


class Unseekable(io.RawIOBase):
    """A pipe: checksums then follow the content."""

    def __init__(self, target: io.BytesIO) -> None:
        self.target = target

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self.target.write(content)


def test_zstandard_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600))
    with pytest.raises(DatasetError, match="Zstandard"):
        extract_archive(tmp_path / "toy.tar.zst", tmp_path / "out")


def test_a_damaged_length_in_a_zip_files_table_loses_no_member() -> None:
    content = ARCHIVES["stored"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.start_dir
    while content[place : place + 4] == b"PK\1\2":
        for field in (30, 31, 32, 33):  # lengths of the extra field and of the comment
            for bit in (0, 7):
                assert is_harmless(flip(content, 8 * (place + field) + bit))
        name = int.from_bytes(content[place + 28 : place + 30], "little")
        assert is_harmless(flip(content, 8 * (place + 46 + name - 1) + 5))  # of a folder's name too
        place += 46 + name


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar command")
def test_tar_files_of_the_tar_command(form: str, tmp_path: Path) -> None:
    deep = "nut/" + "/".join("d" * 40 for _ in range(2 if form == "v7" else 5)) + "/ü.png"
    names = {"nut/a.png": random.randbytes(1500), deep: b"x" * BLOCK} | FILES
    for name, content in names.items():
        (path := tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "in/nut/empty").mkdir()
    for number, options in enumerate((["-b", "1"], ["-b", "2000"], ["-z"], ["-J"], ["-j"])):
        archive = tmp_path / str(number)
        command = ["tar", f"--format={form}", *options, "-cf", str(archive), "nut"]
        subprocess.run(command, cwd=tmp_path / "in", check=True)
        assert unpack(archive.read_bytes()) == names


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git LFS pointer"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "web page"),
        (b"", "empty file"),
    ],
)
def test_what_came_in_an_archives_place_is_named(content: bytes, name: str) -> None:
    assert name in unpack(content)


PARTS = st.sampled_from(["a", "A", "b", "..", ".", "C:", "", " ", "ü", "u\u0308", "n" * 256, "\r"])


@given(
    places=st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=4), st.sampled_from("/\\")),
                    min_size=1, max_size=4),
    kind=st.sampled_from(["zip", "tar"]),
)  # fmt: skip
@example(places=[(["a", "b"], "\\")], kind="zip")
@try_examples(150)
def test_any_names_are_refused_or_lie_inside_with_their_contents(
    places: list[tuple[list[str], str]], kind: str
) -> None:
    names = [separator.join(parts) for parts, separator in places]
    if kind == "zip":
        with warnings.catch_warnings(action="ignore"):  # names that stand twice
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name in names:
                    archive.writestr(zipfile.ZipInfo(name), f"of {name}")
            content = buffer.getvalue()
    else:
        content = tar_bytes(*(tar_member(name, size=len(name)) for name in names))
    with TemporaryDirectory() as folder:
        (archive_path := Path(folder) / "in").write_bytes(content)
        try:
            extract_archive(archive_path, Path(folder) / "out/tree")
        except DatasetError as error:
            assert str(error).startswith(f"{archive_path}: ")  # noqa: PT017
            assert files_below(Path(folder)) == {"in": content}
            return
        written = files_below(Path(folder) / "out/tree")
        assert set(files_below(Path(folder))) == {"in", *(f"out/tree/{name}" for name in written)}
        assert len(written) == len(names)
        for name in names:
            place = "/".join(part for part in re.split(r"[/\\]", name) if part not in ("", "."))
            expected = f"of {name}".encode() if kind == "zip" else b"x" * len(name)
            assert written[place] == expected
