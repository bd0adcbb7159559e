"""The GPU's check runs to its end on the CPU, at tiny sizes, as somebody would start it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_table import HEAD, TINY

ROOT = Path(__file__).resolve().parents[3]
PRECISIONS = ("float32", "TF32", "bf16")
COMPARED = ("class features", "patch tokens", "image scores", "maps")
#: Starts of rows, and how many there are.
ROWS = {
    **{f"{what}, {kind}, difference": 1 for kind in PRECISIONS for what in COMPARED},
    "tests marked for a GPU": 1,
    "open_clip's bare tower, TF32": 1,
    "open_clip's bare tower, bf16": 1,
    "the same with rounded weights, bf16": 1,
    "features, TF32": 2,
    "features, bf16": 2,
    "image to map, TF32": 2,
    "image to map, bf16": 2,
    "EFA, float32": 1,
    "RPL, float32": 1,
    "peak memory": 4,
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The table that was printed, and the same from JSON."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--cpu", "--out", str(out)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text())


def test_the_table_says_that_it_is_no_result_and_has_every_row(printed):
    text, content = printed
    head, empty, names, _, *lines = text.splitlines()
    assert head.startswith(TINY)
    assert head == content["machine"]
    assert (empty, names) == ("", f"| {' | '.join(HEAD)} |")
    for start, count in ROWS.items():
        assert sum(line.startswith(f"| {start}") for line in lines) == count, start
    assert len(lines) == sum(ROWS.values()) == len(content["rows"])


def test_its_numbers_are_finite_and_what_is_a_rate_or_a_size_is_positive(printed):
    _, content = printed
    for row in content["rows"]:
        assert not row["failed"], row
        if row["name"].startswith("tests"):  # skipped, which is said and is no failure
            assert "skipped without a GPU" in row["against"]
            continue
        least = 0.0 if "difference" in row["name"] else 1e-6
        assert least <= row["value"] < math.inf, row
        assert least <= row["ratio"] < math.inf, row
