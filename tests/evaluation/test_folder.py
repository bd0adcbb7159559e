"""A folder of one's own images, from Python: the numbers that a plain loop gives."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny_models import make_model
from trees import write_picture

from fuzzyclip import FuzzyCLIP
from fuzzyclip.images.decode import load_mask, resize_mask
from fuzzyclip.utils.tree import DatasetError


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    return FuzzyCLIP.load(make_model(tmp_path_factory.mktemp("model"), tiny_config)[0])


@pytest.fixture
def folder(tmp_path):
    """Two categories, one with masks and one without."""
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 20), np.uint8)
    mask[4:12, 6:14] = 255
    for name in ("hinge", "bracket"):
        for kind, count in (("good", 4), ("scratch", 3)):
            for number in range(count):
                pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                write_picture(tmp_path / name / kind / f"{number}.png", pixels)
    for number in range(3):
        write_picture(tmp_path / f"hinge/ground_truth/scratch/{number}_mask.png", mask)
    return tmp_path


def test_metrics_of_a_folder_are_those_of_its_images_one_by_one(model, folder):
    table = model.evaluate(folder).set_index("category")
    assert list(table.index) == ["bracket", "hinge"]
    assert table[["normal", "anomalous"]].to_numpy().tolist() == [[4, 3], [4, 3]]
    assert table.loc["bracket"].filter(like="pixel").isna().all()
    for name in ("bracket", "hinge"):
        paths = sorted(folder.glob(f"{name}/good/*")) + sorted(folder.glob(f"{name}/scratch/*"))
        scorer = model.build_category_model(name)
        scores = [model(path, category=name).image_score for path in paths]
        expected = 100 * roc_auc_score([0] * 4 + [1] * 3, scores)
        assert table.loc[name, "image_auroc"] == pytest.approx(expected)
    size = scorer.backbone.image_size
    masks = [np.zeros((size, size), dtype=bool)] * 4 + [
        resize_mask(load_mask(folder / f"hinge/ground_truth/scratch/{i}_mask.png"), size)
        for i in range(3)
    ]
    maps = [find_map(model, path, "hinge") for path in paths]
    expected = 100 * average_precision_score(np.ravel(masks), np.ravel(maps))
    assert table.loc["hinge", "pixel_ap"] == pytest.approx(expected, rel=1e-4)


def find_map(model, path, category):
    """A map at the model's own size."""
    from fuzzyclip.clip.encoding import encode_images, preprocess
    from fuzzyclip.images.decode import load_image
    from fuzzyclip.method.scorer import score_batch

    category_model = model.build_category_model(category)
    pixels = preprocess(load_image(path), category_model.backbone)[None]
    image_embed, tokens = encode_images(category_model.backbone, pixels)
    scorer, backbone = category_model.scorer, category_model.backbone
    return score_batch(scorer, tokens, image_embed, backbone, category_model.sigma).maps[0]


def test_one_category_is_named_by_its_folder_and_bad_folders_are_refused(model, folder):
    assert model.evaluate(folder / "hinge")["category"].tolist() == ["hinge"]
    with pytest.raises(DatasetError, match="no images in a layout that is known"):
        model.evaluate(folder / "hinge" / "good")
