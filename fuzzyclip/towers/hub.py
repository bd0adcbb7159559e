"""Files of the Hugging Face hub, with the SHA-256 that the hub publishes of large ones.

`huggingface_hub` does it: its cache, tokens, proxies and mirrors (HF_ENDPOINT) are the user's own.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from fuzzyclip.towers.folder import TowerError


class Published(NamedTuple):
    """A file as the hub has it: its name, its SHA-256 (None of a small file) and the commit."""

    filename: str
    sha256: str | None
    commit: str | None


def look_up(repo: str, filenames: tuple[str, ...], revision: str | None = None) -> Published:
    """The first of some files that a repository has.

    Raises:
        TowerError: none of them is there, or the hub can not be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    endpoint = _read_endpoint()
    for filename in filenames:
        url = hf_hub_url(repo, filename, revision=revision, endpoint=endpoint)
        try:
            metadata = get_hf_file_metadata(url, endpoint=endpoint)
        except EntryNotFoundError:
            continue
        except Exception as error:  # of HTTP's library, of the hub's, of the system
            raise TowerError(_say_failure(repo, filename, error)) from error
        etag = metadata.etag or ""  # of a file in large storage it is the SHA-256
        digest = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
        return Published(filename, digest, metadata.commit_hash)
    raise TowerError(f"huggingface.co/{repo} has no {' or '.join(filenames)}")


def download(repo: str, file: Published) -> Path:
    """The file in the hub's own cache, where a broken download is taken up again.

    Raises:
        TowerError: it could not be fetched.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repo, file.filename, revision=file.commit, endpoint=_read_endpoint())
    except Exception as error:  # as above
        raise TowerError(_say_failure(repo, file.filename, error)) from error
    return Path(path).resolve()


def _read_endpoint() -> str | None:
    """The hub's address if it is another; the library reads it when it is imported alone."""
    return os.environ.get("HF_ENDPOINT") or None


def _say_failure(repo: str, filename: str, error: Exception) -> str:
    line = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"{filename} of huggingface.co/{repo} could not be fetched ({line}). Offline: get it on "
        "another machine and give it by --file, with --sha256 as its page there shows it"
    )
