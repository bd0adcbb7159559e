"""Normal images of a tested category: which are chosen, and what becomes of the tables' titles."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from fuzzyclip.clip.encoding import encode_images, load_pixels
from fuzzyclip.evaluation.category import choose_references, encode_references
from fuzzyclip.method import VARIANTS, list_titles


@pytest.fixture
def rows(tmp_path):
    """Index rows of three normal training images, and of one anomalous."""
    lines = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 32), (60 * number, 90, 255 - 60 * number)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append({"image_path": str(path), "label": int(number == 3), "sha256": digest})
    return pd.DataFrame(lines)


def test_fewer_images_are_the_first_of_more_and_only_normal_ones(rows):
    first, three = choose_references(rows, 1, 5), choose_references(rows, 3, 5)
    assert first["image_path"].tolist() == three["image_path"].tolist()[:1]
    assert set(three["image_path"]) == set(rows["image_path"][:3])
    assert len({choose_references(rows, 1, seed).index[0] for seed in range(9)}) > 1
    with pytest.raises(ValueError, match="3 normal training images, 4 are asked for"):
        choose_references(rows, 4, 5)


def test_tokens_are_those_of_the_images_in_order(rows, tiny):
    chosen = rows.iloc[[2, 0, 1, 3, 2]]  # more than a batch
    paths = [rows["image_path"][place] for place in (2, 0, 1, 3, 2)]
    expected = encode_images(tiny, load_pixels(list(map(Path, paths)), tiny))[1]
    assert torch.allclose(encode_references(chosen, tiny), expected, atol=1e-5)


def test_an_image_that_is_not_the_indexed_one_is_refused(rows, tiny, tmp_path):
    (tmp_path / "0.png").write_bytes((tmp_path / "3.png").read_bytes())
    with pytest.raises(OSError, match=r"0\.png: not the file that was indexed"):
        encode_references(rows, tiny)


def test_variants_of_a_table_are_those_shown_and_one_a_number_of_images():
    assert list(list_titles(["fuzzyclip", "object"])) == ["object", "fuzzyclip"]
    titles = list_titles(list(VARIANTS), [1, 4])
    assert [*titles][-2:] == ["fuzzyclip_1shot", "fuzzyclip_4shot"]
    assert titles["fuzzyclip_1shot"] == "FuzzyCLIP + 1 normal image"
