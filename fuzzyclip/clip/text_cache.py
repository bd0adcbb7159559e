"""Text features on disk: a string goes through the text tower once, however many stages ask for it.

One SQLite file serves several processes at once and may be deleted at any time. It can only save
work: what it gives is what `encode_text` gives, to the last bit, and where it fails, be it broken,
read-only or on a full disk, the text tower does the work as if there were no file.

Shapes: n prompts, D embedding width.
"""

import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import PASS_ROWS, PASS_STEP, encode_text
from fuzzyclip.clip.weights import RANDOM

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Layout of the file. Raise it with every change of the table.
FORMAT = 1
#: Version of the code that makes features. Raise it when the same string, weights and settings no
#: longer give the same numbers.
CODE = 1
#: Marks a SQLite file as ours ("FzTx").
APPLICATION = 0x467A5478
#: Parts of an identity that text features do not depend on.
IMAGE_ONLY = ("image_size", "blocks", "position_embedding", "mean", "std")
#: Strings that are looked up in one query, and that are encoded before they are stored: bounds of
#: memory, and of what a kill loses.
LOOKUP, CHUNK = 500, 2048
#: Seconds to wait for another process that writes.
PATIENCE = 30.0


class TextCache:
    """Text features of one frozen CLIP in a file that any number of them may share."""

    def __init__(self, path: Path, backbone: Backbone) -> None:
        """Name the file; nothing is opened before `encode`.

        Args:
            path: of the file; made, with its folder, when something is first stored. A file that
                is no text cache is moved aside, to the same name with `.broken` after it.
            backbone: the frozen CLIP that encodes.
        """
        self.path, self.backbone = path, backbone
        identity = json.dumps(describe_text(backbone), sort_keys=True)
        self._identity = hashlib.sha256(identity.encode()).digest()

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Text features (n, D), float32, not normalised, on the backbone's device.

        Equal strings are looked up and encoded once. Memory is that of the result and of `CHUNK`
        strings more.

        Raises:
            PromptTooLongError: see `fuzzyclip.clip.encoding.encode_text`.
            ValueError: likewise.
        """
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)
        unique = list(places)
        embeds = torch.empty(len(prompts), self.backbone.embed_dim)
        for start in range(0, len(unique), CHUNK):
            chunk = unique[start : start + CHUNK]
            known = self._attempt(partial(self._read, prompts=chunk)) or {}
            missing = [prompt for prompt in chunk if prompt not in known]
            if missing:
                made = dict(zip(missing, encode_text(self.backbone, missing).cpu(), strict=True))
                self._attempt(partial(self._write, made=made))
                known |= made
            for prompt in chunk:
                embeds[places[prompt]] = known[prompt]
        return embeds.to(self.backbone.device)

    def _make_key(self, prompt: str) -> bytes:
        # a lone surrogate is no UTF-8, but the tokenizer may take it
        return hashlib.sha256(self._identity + prompt.encode("utf-8", "surrogatepass")).digest()

    def _read(self, db: sqlite3.Connection, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The features (D,) that are there and whole."""
        owners = {self._make_key(prompt): prompt for prompt in prompts}
        keys, found = list(owners), {}
        query = "SELECT key, embed FROM texts WHERE key IN ({})"
        for start in range(0, len(keys), LOOKUP):
            asked = keys[start : start + LOOKUP]
            marks = ",".join("?" * len(asked))
            for key, blob in db.execute(query.format(marks), asked):
                embed = _unpack(key, blob, self.backbone.embed_dim)
                if embed is not None:
                    found[owners[key]] = embed
        return found

    def _write(self, db: sqlite3.Connection, made: dict[str, Tensor]) -> None:
        rows = [
            (key := self._make_key(prompt), _pack(key, embed)) for prompt, embed in made.items()
        ]
        db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?)", rows)

    def _attempt(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Do work on the file, or warn and give None."""
        try:
            try:
                with _open(self.path) as db:
                    return work(db)
            except sqlite3.DatabaseError as error:
                # locked, read-only, full: nothing is broken; but without its table it is
                if isinstance(error, sqlite3.OperationalError) and not _lacks_table(error):
                    raise
                _set_aside(self.path, error)
                with _open(self.path) as db:
                    return work(db)
        except (OSError, sqlite3.Error) as error:
            _warn(f"text cache {self.path}: {error}; texts are encoded without it")
            return None


def describe_text(backbone: Backbone) -> dict[str, Any]:
    """All that a text feature depends on besides its string, as plain data."""
    identity = backbone.identity
    if not identity["weights_sha256"].startswith(RANDOM):  # else drawn after the image tower's
        config = {k: v for k, v in identity["config"].items() if k != "vision_cfg"}
        kept = {k: v for k, v in identity.items() if k not in IMAGE_ONLY}
        identity = kept | {"config": config}
    return identity | {
        "code": CODE,
        "passes": [PASS_ROWS, PASS_STEP],
        "device": backbone.device.type,
    }


@cache
def _warn(message: str) -> None:
    """Once is enough: a stage asks the cache for every name."""
    log.warning(message)


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose changes are committed at the end, all or none.

    Raises:
        sqlite3.DatabaseError: the file is broken or another program's.
        OSError: its folder can not be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=PATIENCE)
    try:
        with db:
            _prepare(db)
            yield db
    finally:
        db.close()


def _prepare(db: sqlite3.Connection) -> None:
    """Make the table in a new file; refuse a file of another program or format."""
    if _read_marks(db) == (APPLICATION, FORMAT):
        return
    db.execute("BEGIN IMMEDIATE")  # another process may be making it, too
    if _read_marks(db) == (APPLICATION, FORMAT):
        return
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError("it is a database of another program or format")
    db.execute("CREATE TABLE texts (key BLOB PRIMARY KEY, embed BLOB NOT NULL)")
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _read_marks(db: sqlite3.Connection) -> tuple[int, int]:
    names = ("application_id", "user_version")
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return application, version


def _set_aside(path: Path, error: Exception) -> None:
    """Move a broken file out of the way; its journal would be played into the new one."""
    if not path.is_file():  # a device, say
        raise error
    log.warning("text cache %s: %s; it is moved aside and begun anew", path, error)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    path.replace(path.with_name(f"{path.name}.broken"))


def _lacks_table(error: sqlite3.Error) -> bool:
    """Whether SQLite does not find our table or its columns: the description of it is damaged."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _pack(key: bytes, embed: Tensor) -> bytes:
    """A feature (D,) as little-endian bytes after their check sum: SQLite itself has none.

    The sum is that of the key, too: a damaged index leads from one key to the row of another.
    """
    data = embed.numpy().astype("<f4").tobytes()
    return zlib.crc32(data, zlib.crc32(key)).to_bytes(4, "little") + data


def _unpack(key: bytes, blob: Any, width: int) -> Tensor | None:
    """The feature (D,) of packed bytes, or None where they are damaged."""
    if not isinstance(blob, bytes) or len(blob) != 4 * (width + 1):
        return None
    if zlib.crc32(blob[4:], zlib.crc32(key)).to_bytes(4, "little") != blob[:4]:
        return None
    return torch.from_numpy(np.frombuffer(blob[4:], dtype="<f4").astype(np.float32))
