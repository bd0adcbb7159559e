"""Downloads: dead and lying addresses, broken connections, hostile archives at the other end."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from loopback import Loopback
from properties import try_examples
from toy_archives import FILES, fetch, files_below, toy, zip_bytes

from fuzzyclip.datasets.base.spec import Archive
from fuzzyclip.datasets.fetching import download, extract
from fuzzyclip.datasets.fetching.download import download_archive
from fuzzyclip.utils.tree import DatasetError

DATA = zip_bytes(FILES)
BIG = bytes(range(256)) * 20  # 5120 bytes: six pieces of 1000
DEAD = "http://127.0.0.1:1/dead.zip"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    loopback = Loopback()
    loopback.pages = {"toy.zip": DATA, "other.zip": b"other", "big.zip": BIG}
    yield loopback
    loopback.stop()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def get(folder: Path, *urls: str, expected: bytes | None = BIG) -> bytes:
    archive = Archive("big.zip", urls)
    path, _ = download_archive(archive, folder, sha256(expected) if expected else None)
    assert [p.name for p in folder.iterdir()] == ["big.zip"]  # nothing half-done beside it
    return path.read_bytes()


def test_addresses_are_tried_in_order(server: Loopback, tmp_path: Path) -> None:
    paths = ("/good/gone.zip", "/good/other.zip", "/short/toy.zip", "/moved/toy.zip")
    spec = toy(DATA, (DEAD, *(server.url + path for path in paths)))
    archives = tmp_path / "archives"
    record = fetch(spec, tmp_path / "raw", archives_dir=archives, download=True)
    assert record["archives"][0]["source"] == f"{server.url}/moved/toy.zip"
    assert record["archives"][0]["verified"] is True
    assert files_below(tmp_path / "raw") == FILES
    assert files_below(archives) == {"toy.zip": DATA}
    # the archive is there now: the second time needs no network
    again = fetch(spec, tmp_path / "raw2", archives_dir=archives)
    assert again["archives"][0]["source"] == "placed by hand"


def test_a_download_that_was_deleted_or_emptied_is_fetched_again(
    server: Loopback, tmp_path: Path
) -> None:
    spec, archives = toy(DATA, (f"{server.url}/good/toy.zip",)), tmp_path / "archives"
    for spoil in (None, Path.unlink, lambda path: path.write_bytes(b"")):
        if spoil is not None:
            spoil(archives / "toy.zip")
        record = fetch(spec, tmp_path / "raw", archives_dir=archives, download=True)
        assert record["archives"][0]["verified"]
        assert files_below(archives) == {"toy.zip": DATA}


def test_an_emptied_archive_that_only_a_person_can_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").touch()
    with pytest.raises(DatasetError, match=r"toy\.zip: an empty file; fetch it again"):
        fetch(toy(), tmp_path / "raw", archives_dir=tmp_path)


def test_given_addresses_come_first(server: Loopback, tmp_path: Path) -> None:
    spec = toy(DATA, (DEAD,))
    mirror = f"{server.url}/good/toy.zip"
    record = fetch(spec, tmp_path / "raw", download=True, urls={"toy.zip": [mirror]})
    assert record["archives"][0]["source"] == mirror
    with pytest.raises(DatasetError, match=r"addresses or checksums for tyo\.zip"):
        fetch(spec, tmp_path / "raw", download=True, urls={"tyo.zip": [mirror]})


def test_every_failed_address_is_reported(server: Loopback, tmp_path: Path) -> None:
    paths = ("/good/other.zip", "/short/toy.zip", "/good/gone.zip")
    spec = toy(DATA, (*(server.url + path for path in paths), "file:///etc/passwd"))
    with pytest.raises(DatasetError) as error:
        fetch(spec, tmp_path / "raw", download=True, allow_unverified=True)
    text = str(error.value)
    for part in ("other.zip: sha256 is", "broke off after", "404", "only http and https"):
        assert part in text
    assert not list(tmp_path.iterdir())


def test_a_broken_download_goes_on_where_it_stopped(server: Loopback, tmp_path: Path) -> None:
    server.piece = 2000
    assert get(tmp_path, f"{server.url}/break/big.zip") == BIG
    assert [asked for _, asked in server.asked] == [None, "bytes=2000-", "bytes=4000-"]


def test_the_next_run_takes_up_what_a_failed_one_left(server: Loopback, tmp_path: Path) -> None:
    server.piece = 100
    downloads = tmp_path / "downloads"
    spec = toy(BIG, (f"{server.url}/break/big.zip",))
    with pytest.raises(DatasetError, match="broke off after 400 of 5120 bytes"):
        fetch(spec, tmp_path / "raw", download=True, downloads_dir=downloads)
    assert (downloads / ".toy.zip.part").read_bytes() == BIG[:400]
    # another address of the same file: the checksum tells that the pieces fit
    spec = toy(DATA, (f"{server.url}/good/toy.zip",))
    (downloads / ".toy.zip.part").write_bytes(DATA[:50])
    fetch(spec, tmp_path / "raw", download=True, downloads_dir=downloads)
    assert server.asked[-1] == ("/good/toy.zip", "bytes=50-")
    assert files_below(tmp_path / "raw") == FILES
    assert files_below(downloads) == {}  # extracted: the archive is not kept twice


def test_a_poor_line_that_brings_something_is_not_given_up(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CHUNK", 500)
    server.piece = 600  # breaks off nine times, twice the tries
    assert get(tmp_path, f"{server.url}/break/big.zip") == BIG
    assert len(server.asked) == 9


def test_pieces_that_do_not_fit_are_thrown_away(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / ".big.zip.part").write_bytes(b"?" * 300)
    assert get(tmp_path, f"{server.url}/good/big.zip") == BIG
    assert [asked for _, asked in server.asked] == ["bytes=300-", None]


@pytest.mark.parametrize("excess", [0, 7])
def test_a_complete_or_too_long_piece(server: Loopback, tmp_path: Path, excess: int) -> None:
    (tmp_path / ".big.zip.part").write_bytes(BIG + b"?" * excess)
    assert get(tmp_path, f"{server.url}/good/big.zip") == BIG
    assert len(server.asked) == (2 if excess else 1)


def test_without_a_checksum_only_the_servers_mark_counts(server: Loopback, tmp_path: Path) -> None:
    server.piece = 3000
    assert get(tmp_path / "a", f"{server.url}/break/big.zip", expected=None) == BIG
    assert [asked for _, asked in server.asked] == [None, "bytes=3000-"]
    # a changed version is sent whole; what was there is not mixed with it
    part, state = tmp_path / "b/.big.zip.part", tmp_path / "b/.big.zip.part.json"
    part.parent.mkdir()
    part.write_bytes(b"old" * 100)
    url = f"{server.url}/shift/big.zip"
    state.write_text(json.dumps({"url": url, "mark": '"0"'}))
    assert get(tmp_path / "b", url, expected=None) == BIG
    part = tmp_path / "c/.big.zip.part"
    part.parent.mkdir()
    part.write_bytes(b"old" * 100)
    assert get(tmp_path / "c", f"{server.url}/good/big.zip", expected=None) == BIG
    assert server.asked[-1] == ("/good/big.zip", None)


@pytest.mark.parametrize("behaviour", ["plain", "busy", "liar"])
def test_servers_that_do_not_do_ranges_as_asked(
    server: Loopback, tmp_path: Path, behaviour: str
) -> None:
    (tmp_path / ".big.zip.part").write_bytes(BIG[:300])
    if behaviour == "liar":
        server.piece = 10**6
    assert get(tmp_path, f"{server.url}/{behaviour}/big.zip") == BIG


@try_examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(min_size=1, max_size=3000), piece=st.integers(1, 900), have=st.data())
def test_any_interruption_gives_the_same_bytes(
    server: Loopback,
    tmp_path_factory: pytest.TempPathFactory,
    body: bytes,
    piece: int,
    have: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("download")
    server.pages["big.zip"], server.piece = body, max(piece, len(body) // 3 + 1)
    start = have.draw(st.integers(0, len(body)))
    (folder / ".big.zip.part").write_bytes(body[:start])
    assert get(folder, f"{server.url}/break/big.zip", expected=body) == body


def test_a_full_disk_is_said_before_the_first_byte(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 5000)
    with pytest.raises(DatasetError, match="5,120 bytes, but"):
        get(tmp_path, f"{server.url}/good/big.zip")
    assert not list(tmp_path.glob("*.zip"))
    with pytest.raises(DatasetError, match="more than 5000 bytes"):
        get(tmp_path, f"{server.url}/unsized/big.zip")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zip_bytes({"nut/../../evil": b"x"}), "outside"),
        (b"<html>please log in</html>", "web page"),
        (DATA[:-30], "no zip or tar file"),
        (zip_bytes({"nut/test/good/000.png": bytes(2**20 + 1)}), "unpacks to more"),
    ],
    ids=["up", "web page", "cut", "bomb"],
)
def test_hostile_archives_leave_nothing(
    server: Loopback, tmp_path: Path, data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_members": 100, "max_bytes": 2**20}
    monkeypatch.setattr(extract.extract_archive, "__kwdefaults__", limits)
    server.pages["toy.zip"] = data
    spec = toy(data, (f"{server.url}/good/toy.zip",))
    with pytest.raises(DatasetError, match=message):
        fetch(spec, tmp_path / "in/raw", download=True)
    assert files_below(tmp_path) == {}
