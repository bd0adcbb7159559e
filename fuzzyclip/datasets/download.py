"""Download of one file from the first address that gives the right bytes."""

import http.client
import logging
import urllib.error
import urllib.request
from pathlib import Path

from fuzzyclip.datasets.spec import Archive, DatasetError
from fuzzyclip.files import compute_sha256

LOGGER = logging.getLogger(__name__)
CHUNK = 2**20
TIMEOUT = 60.0  # seconds without a byte
FAILURES = (OSError, http.client.HTTPException, ValueError)


def download_archive(archive: Archive, folder: Path, expected: str | None) -> tuple[Path, str]:
    """Fetch an archive, trying its addresses in order.

    Args:
        archive: what to fetch.
        folder: where to put it; the file appears there only when it is complete and right.
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
            _download(url, partial)
            digest = compute_sha256(partial)
            if expected and digest != expected:
                raise ValueError(f"sha256 is {digest}, expected {expected}")
        except FAILURES as error:
            LOGGER.warning("%s: %s", url, error)
            failures.append(f"{url}: {error}")
            partial.unlink(missing_ok=True)
            continue
        partial.rename(target)
        return target, url
    raise DatasetError("\n".join([f"{archive.filename}: no address worked", *failures]))


def _download(url: str, target: Path) -> None:
    """Write the body of one answer to a file; a body cut short is an error."""
    if not url.startswith(("https://", "http://")):
        raise ValueError("only http and https addresses are fetched")
    request = urllib.request.Request(url, headers={"User-Agent": "fuzzyclip"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, target.open("wb") as out:
        size = answer.headers.get("Content-Length")
        while chunk := answer.read(CHUNK):
            out.write(chunk)
    if size is not None and target.stat().st_size != int(size):
        raise OSError(f"broke off after {target.stat().st_size} of {size} bytes")
