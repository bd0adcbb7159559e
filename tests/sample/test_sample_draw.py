"""The drawn parts: exact masks, every size, and the split of pretraining from evaluation."""

import numpy as np
import pytest

from fuzzyclip.sample.defects import DEFECTS
from fuzzyclip.sample.draw import draw_part
from fuzzyclip.sample.evaluation_recipes import EVALUATION
from tools.pretrain_sample.recipes import PRETRAINING

RECIPES = EVALUATION | PRETRAINING


def test_pretraining_never_names_an_evaluation_category() -> None:
    assert len(PRETRAINING) >= 40
    names = [recipe.split("/")[-1].lower().replace("_", " ") for recipe in EVALUATION]
    assert {name.rstrip("0123456789 ") for name in names}.isdisjoint(PRETRAINING)


@pytest.mark.parametrize("name", RECIPES)
def test_mask_is_exact(name: str) -> None:
    recipe = RECIPES[name]
    normal, empty = draw_part(recipe, np.random.default_rng(3))
    assert normal.shape == (144, 144, 3)
    assert normal.dtype == np.uint8
    assert empty.shape == (144, 144)
    assert not empty.any()
    for defect in DEFECTS:
        damaged, mask = draw_part(recipe, np.random.default_rng(3), defect=defect)
        assert mask.dtype == np.bool_
        assert 0 < mask.mean() < 0.5
        change = np.abs(damaged.astype(int) - normal).max(axis=2)
        assert change[~mask].max() == 0
        assert change[mask].mean() > 8, "the defect is visible"


@pytest.mark.parametrize("name", EVALUATION)
@pytest.mark.parametrize("size", [(96, 150), (200, 144), (60, 180)])
def test_other_sizes(name: str, size: tuple[int, int]) -> None:
    image, mask = draw_part(EVALUATION[name], np.random.default_rng(0), size, "crack")
    assert image.shape == (*size, 3)
    assert mask.shape == size
    assert mask.any()


def test_a_seed_fixes_the_picture_and_the_generators_advance() -> None:
    for name in ("visa/pcb1", "mvtec/tile", "gear"):
        generators = [np.random.default_rng(seed) for seed in (11, 11, 12)]
        first, second, other = (draw_part(RECIPES[name], rng, defect="stain") for rng in generators)
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert not np.array_equal(first[0], other[0])
        draw_part(RECIPES[name], normal := np.random.default_rng(11))
        assert normal.integers(1 << 30) == generators[0].integers(1 << 30)


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown defect 'rust'"):
        draw_part(RECIPES["coin"], np.random.default_rng(0), defect="rust")
