"""Download of one file from the first address that gives the right bytes.

A broken download goes on where it stopped, also after a kill and also from another address: what
is there already counts as long as the checksum, or the server's own mark of the version, can tell
that it belongs to the same file.
"""

import json
import logging
import re
import shutil
import time
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from fuzzyclip.datasets.base.spec import Archive
from fuzzyclip.utils.files import compute_sha256, write_json
from fuzzyclip.utils.tree import DatasetError

LOGGER = logging.getLogger(__name__)
CHUNK = 2**20
TIMEOUT = (20.0, 60.0)  # seconds to connect, seconds without a byte
TRIES = 4  # of one address, in a row and without a chunk of progress
PAUSE = 1.0  # seconds before the second try; doubles
MAX_BYTES = 24 * 2**30  # the largest archive, MVTec AD's, has 5 GB
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TransientError(Exception):
    """Worth another try at the same address."""


def download_archive(archive: Archive, folder: Path, expected: str | None) -> tuple[Path, str]:
    """Fetch an archive, trying its addresses in order.

    Args:
        folder: where the file appears only when it is complete and right. What a failed attempt
            leaves there is taken up by the next one.
        expected: SHA-256 the file must have, None to take it unverified.

    Returns:
        The file, and the address it came from.

    Raises:
        DatasetError: every address failed; says how each one did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.filename
    partial = target.with_name(f".{target.name}.part")
    failures = []
    for url in archive.urls:
        LOGGER.info("downloading %s", url)
        try:
            _try_address(url, partial, expected)
        except (OSError, ValueError) as error:
            LOGGER.warning("%s: %s", url, error)
            failures.append(f"{url}: {error}")
            continue
        partial.rename(target)
        _state_path(partial).unlink(missing_ok=True)
        return target, url
    raise DatasetError("\n".join([f"{archive.filename}: no address worked", *failures]))


def _try_address(url: str, partial: Path, expected: str | None) -> None:
    """Complete the file from one address, with a pause before every further try.

    An OSError or a ValueError says that the address does not give the file.
    """
    failed = 0
    while True:
        before = _measure(partial)
        try:
            _continue(url, partial, known=expected is not None)
            digest = compute_sha256(partial)
            if expected is None or digest == expected:
                return
            _discard(partial)
            if not before:
                raise ValueError(f"sha256 is {digest}, expected {expected}")
            LOGGER.info("%s: what was there before does not belong to this file; again", url)
        except (_TransientError, requests.ConnectionError, requests.Timeout) as error:
            # A large file over a poor line breaks off often: only tries that bring nothing count.
            failed = 1 if _measure(partial) - before >= CHUNK else failed + 1
            if failed == TRIES:
                raise OSError(f"{error} (tried {TRIES} times)") from error
            LOGGER.info("%s: %s; trying again", url, error)
            time.sleep(PAUSE * 2 ** (failed - 1))


def _measure(partial: Path) -> int:
    """Bytes that are there."""
    return partial.stat().st_size if partial.is_file() else 0


def _continue(url: str, partial: Path, *, known: bool) -> None:
    """Append what is missing to the partial file, or start it anew.

    A _TransientError if it broke off or the server is busy, an OSError if the server refuses or the
    disk is too small.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError("only http and https addresses are fetched")
    headers = {"User-Agent": "fuzzyclip", "Accept-Encoding": "identity"}
    have = _resumable(url, partial, known, headers)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code in BUSY:
            raise _TransientError(f"the server answers {answer.status_code}")
        if answer.status_code == 416:  # nothing behind the last byte: complete, or not this file
            if _find_total(answer, 0) != have:
                _discard(partial)
                raise _TransientError("the server has another file of this name")
            return
        answer.raise_for_status()
        start = have if answer.status_code == 206 else 0
        if start and _find_start(answer) != start:
            _discard(partial)
            raise _TransientError("the server sent another part than was asked for")
        total = _find_total(answer, start)
        _check_room(partial, start, total)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        write_json(_state_path(partial), {"url": url, "mark": mark})
        _write(answer, partial, start, total)


def _write(answer: requests.Response, partial: Path, start: int, total: int | None) -> None:
    """Write the body behind the first `start` bytes; a body cut short is a transient error."""
    size = start
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, disable=None, desc=partial.stem[1:]
    )
    with bar, partial.open("r+b" if start else "wb") as out:
        out.seek(start)
        out.truncate()
        try:
            # What has arrived, as it arrives: a longer read would lose its part when broken off.
            while chunk := answer.raw.read1(CHUNK, decode_content=False):
                size += out.write(chunk)
                bar.update(len(chunk))
                if size > MAX_BYTES:
                    raise OSError(f"more than {MAX_BYTES} bytes")
        except urllib3.exceptions.HTTPError as error:
            raise _TransientError(f"broke off after {size} of {total} bytes") from error
    if total is not None and size != total:
        raise _TransientError(f"broke off after {size} of {total} bytes")


def _resumable(url: str, partial: Path, known: bool, headers: dict[str, str]) -> int:
    """Bytes that count, and the headers that ask for the rest."""
    have = _measure(partial)
    try:
        state = json.loads(_state_path(partial).read_text())
    except (OSError, ValueError):
        state = {}
    mark = state.get("mark") if state.get("url") == url else None
    if not have or not (known or mark):
        return 0
    headers["Range"] = f"bytes={have}-"
    if mark and not mark.startswith("W/"):
        headers["If-Range"] = mark
    return have


def _find_start(answer: requests.Response) -> int | None:
    """First byte of a partial answer."""
    begin = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(begin[1]) if begin else None


def _find_total(answer: requests.Response, start: int) -> int | None:
    """Size of the whole file, if the server says it."""
    if total := re.search(r"/(\d+)$", answer.headers.get("Content-Range", "")):
        return int(total[1])
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() and answer.status_code != 416 else None


def _check_room(partial: Path, start: int, total: int | None) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    if total is None:
        return
    free = shutil.disk_usage(partial.parent).free
    if total > MAX_BYTES or total - start > free:
        raise OSError(f"{total:,} bytes, but {free:,} are free in {partial.parent}")


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _state_path(partial).unlink(missing_ok=True)


def _state_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")
