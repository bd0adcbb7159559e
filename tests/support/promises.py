"""Small files that promise many pixels."""

import io
import struct

from PIL import Image


def save(kind, mode="RGB", side=16, **options):
    with io.BytesIO() as stream:
        Image.new(mode, (side, side), 1).save(stream, kind, **options)
        return bytearray(stream.getvalue())


def promise_jpeg(side, **options):
    """A JPEG whose header says side times side, and whose content is that of 16 times 16."""
    content = save("JPEG", **options)
    marker = b"\xff\xc2" if options.get("progressive") else b"\xff\xc0"
    start = content.index(marker) + 5
    content[start : start + 4] = struct.pack(">2H", side, side)
    return content


def promise_ended_jpeg(side):
    """As `promise_jpeg`, and whole for a reader that fills what is not there with gray."""
    return promise_jpeg(side) + b"\xff\xd9" * 700
