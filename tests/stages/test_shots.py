"""Rows with good images: which images are remembered, and what becomes of the tables."""

import hashlib

import pandas as pd
import pytest
import torch
from fuzzyclip.evaluation.rows import ROWS, list_rows
from PIL import Image
from stages.shots import Shots

from fuzzyclip.clip.encoding import encode_images
from fuzzyclip.clip.pixels import load_pixels
from fuzzyclip.images.index_file import INDEX_COLUMNS
from fuzzyclip.method.normal_memory import remember


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Three good training images of a category, one test image, as the index lists them."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for number in range(4):
        path = tmp_path / f"data/raw/parts/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (60 * number, 90, 255 - 60 * number)).save(path)
        line = dict.fromkeys(INDEX_COLUMNS, "")
        lines.append(
            line | {"image_path": path.name, "category": "nut", "label": 0, "defect": "good",
                    "split": "train" if number < 3 else "test", "width": 32, "height": 32,
                    "mask_above": 0,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        )  # fmt: skip
    (tmp_path / "data/index").mkdir()
    pd.DataFrame(lines).to_csv("data/index/parts.csv", index=False)
    return tmp_path


def test_fewer_images_are_the_first_of_more_and_only_of_training(dataset, tiny):
    one, three = Shots("parts", [1, 3], 5, tiny).remember("nut").values()
    assert torch.equal(one.tokens, three.tokens[:, : one.tokens.shape[1]])
    paths = [dataset / f"data/raw/parts/{number}.png" for number in range(3)]
    tokens = encode_images(tiny, load_pixels(paths, tiny))[1]
    known = remember(tokens, tiny.grid, tiny.image_size).tokens
    assert torch.allclose(
        three.tokens.sum(dim=1), known.sum(dim=1), atol=1e-4
    )  # the same in another order
    seen = {
        Shots("parts", [1], seed, tiny).remember("nut")[1].tokens.sum().item() for seed in range(9)
    }
    assert len(seen) > 1


def test_too_few_images_and_changed_ones_are_refused(dataset, tiny):
    with pytest.raises(ValueError, match=r"parts/nut has 3 good training images, 4 are asked for"):
        Shots("parts", [1, 4], 5, tiny).remember("nut")
    assert Shots("parts", [], 5, tiny).remember("nut") == {}
    (dataset / "data/raw/parts/0.png").write_bytes((dataset / "data/raw/parts/3.png").read_bytes())
    with pytest.raises(OSError, match=r"0\.png: not the file that was indexed"):
        Shots("parts", [3], 5, tiny).remember("nut")


def test_rows_of_a_table_are_those_shown_and_one_a_number_of_images():
    assert list(list_rows(["fuzzyclip", "object"])) == ["object", "fuzzyclip"]
    rows = list_rows(list(ROWS), [1, 4])
    assert [*rows][-2:] == ["fuzzyclip_1shot", "fuzzyclip_4shot"]
    assert rows["fuzzyclip_1shot"] == "FuzzyCLIP + 1 good image"
