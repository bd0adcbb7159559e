"""Files from elsewhere that are not what they should be: half downloads, pointers, web pages."""

import json
import re
import struct
import zipfile
from pathlib import Path

#: Bytes at most of the table at the begin of a safetensors file, as the library has it.
MAX_TABLE = 100_000_000


def name_other_content(path: Path) -> str:
    """A fault that a download left in a file's place, and the way to mend it; else empty."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "an empty file; fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or "
            "fetch the file from its page"
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", start) and b"\0" not in start:
        return (
            "a web page, not the file itself (one that asks for a login or consent, or says what "
            "failed); open the address in a browser and fetch the file from there"
        )
    return ""


def describe_fault(path: Path) -> str:
    """A fault of a file of tensors from elsewhere, and the way to mend it.

    Args:
        path: a safetensors file or a PyTorch checkpoint, by its content.

    Returns:
        A sentence on a pointer, a page or a download that broke off; empty where none is seen, as
        for every whole file.
    """
    if found := name_other_content(path):
        return found
    with path.open("rb") as file:
        start = file.read(9)
    half = ""
    if start.startswith(b"PK\3\4") and not zipfile.is_zipfile(path):
        half = "the end of this zip file is missing"
    elif start[8:] == b"{":
        size, promised = path.stat().st_size, measure_safetensors(path)
        if size < promised:
            half = f"its header promises {promised:,} bytes, and it has {size:,}"
    return f"half a download: {half}; fetch it again" if half else ""


def measure_safetensors(path: Path) -> int:
    """Bytes that the begin of a safetensors file promises; 0 if that is none."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > MAX_TABLE:
            return 0
        text = file.read(length)
    end = 8 + int(length)
    if len(text) < length:
        return end
    try:
        entries = json.loads(text).items()
        ends = (int(one["data_offsets"][1]) for name, one in entries if name != "__metadata__")
        return end + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
