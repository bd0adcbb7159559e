"""The drawn parts: exact masks, determinism, and the split of pretraining from evaluation."""

import numpy as np
import pytest

from fuzzyclip.sample.draw import DEFECTS, EVALUATION_RECIPES, PRETRAINING_RECIPES, draw_part

ALL_RECIPES = (*EVALUATION_RECIPES, *PRETRAINING_RECIPES)


def _readable(recipe: str) -> str:
    return recipe.split("/")[-1].lower().replace("_", " ").rstrip("0123456789 ")


def test_evaluation_recipes_are_thirty_in_seven_datasets() -> None:
    datasets = [recipe.split("/")[0] for recipe in EVALUATION_RECIPES]
    counts = {name: datasets.count(name) for name in dict.fromkeys(datasets)}
    assert counts == {"mvtec": 8, "visa": 8, "btad": 3, "mpdd": 3, "dagm": 3, "sdd": 1, "dtd": 4}


def test_pretraining_never_names_an_evaluation_category() -> None:
    assert len(PRETRAINING_RECIPES) >= 40
    evaluation = {_readable(recipe) for recipe in EVALUATION_RECIPES}
    assert evaluation.isdisjoint(PRETRAINING_RECIPES)


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_mask_is_exact(recipe: str) -> None:
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


@pytest.mark.parametrize("recipe", EVALUATION_RECIPES)
@pytest.mark.parametrize("size", [(96, 150), (200, 144), (60, 180)])
def test_other_sizes(recipe: str, size: tuple[int, int]) -> None:
    image, mask = draw_part(recipe, np.random.default_rng(0), size, "crack")
    assert image.shape == (*size, 3)
    assert mask.shape == size
    assert mask.any()


def test_same_seed_same_picture() -> None:
    for recipe in ("visa/pcb1", "mvtec/tile", "gear"):
        first = draw_part(recipe, np.random.default_rng(11), defect="stain")
        second = draw_part(recipe, np.random.default_rng(11), defect="stain")
        other = draw_part(recipe, np.random.default_rng(12), defect="stain")
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
        assert not np.array_equal(first[0], other[0])


def test_generator_advances_alike_with_and_without_defect() -> None:
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    draw_part("mvtec/bottle", first)
    draw_part("mvtec/bottle", second, defect="hole")
    assert first.integers(1 << 30) == second.integers(1 << 30)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'anvil'"):
        draw_part("anvil", np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown defect 'rust'"):
        draw_part("coin", np.random.default_rng(0), defect="rust")
