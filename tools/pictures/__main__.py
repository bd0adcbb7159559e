"""Make docs/images from the results of `dvc repro track`: `make pictures`.

    python -m tools.pictures                   all of them
    python -m tools.pictures --only methods    one; may be repeated

A picture is written when all of it was made. Those of page and experiments need Chromium.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzzyclip.utils.endings import ending
from tools.pictures.catalogue import PICTURES, make_picture
from tools.pictures.sources import PictureError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pictures; 1 where one could not be made."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.pictures", description=__doc__, formatter_class=plain
    )
    parser.add_argument("--only", action="append", choices=[*PICTURES], metavar="NAME")
    names = parser.parse_args(arguments).only or [*PICTURES]
    failed = 0
    for name in names:
        try:
            path = make_picture(ROOT, name)
        except PictureError as error:
            failed = 1
            print(f"{name}: not made. {error}", file=sys.stderr)
        else:
            print(f"{os.path.relpath(path)}: {path.stat().st_size // 1000} kB", flush=True)
    return failed


if __name__ == "__main__":
    with ending():
        sys.exit(main())
