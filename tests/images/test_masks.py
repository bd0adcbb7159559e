"""What of a mask is defect: palettes, alpha, several files; against the colours one sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from properties import try_examples

from fuzzyclip.images.decode import load_mask
from fuzzyclip.images.mask_values import find_defect

SHAPE = np.zeros((12, 16), bool)
SHAPE[3:8, 4:10] = True
BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (200, 0, 0), (0, 90, 0)


def make_palette(indices: NDArray[Any], *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def load(image: Image.Image, folder: Path, above: int = 0, suffix: str = ".png") -> NDArray[Any]:
    image.save(folder / f"m{suffix}")
    return load_mask(folder / f"m{suffix}", above)


@pytest.mark.parametrize(
    ("defect", "background", "colours"),
    [
        (1, 0, (BLACK, WHITE)),
        (0, 1, (WHITE, BLACK)),
        (2, 1, (WHITE, BLACK, RED)),
        (1, 0, (BLACK, BLACK)),  # class ids whose colours nobody chose
        (3, 0, (BLACK, RED, GREEN, WHITE)),
        (0, 3, (RED, GREEN, WHITE, BLACK)),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_a_palette_is_read_by_what_one_sees(
    tmp_path: Path, defect: int, background: int, colours: tuple[Any, ...], suffix: str
) -> None:
    if (suffix, colours) in [(".gif", (BLACK, BLACK)), (".bmp", (BLACK, WHITE))]:
        pytest.skip("Pillow merges equal colours of a GIF, and takes such a BMP for one of 1 bit")
    image = make_palette(np.where(SHAPE, defect, background), *colours)
    assert np.array_equal(load(image, tmp_path, suffix=suffix), SHAPE)


def test_a_threshold_compares_indices_behind_black_and_brightness_elsewhere(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2, 3]])
    ids = make_palette(indices, BLACK, RED, GREEN, WHITE)
    assert load(ids, tmp_path, 1).tolist() == [[False, False, True, True]]
    seen = make_palette(indices, WHITE, RED, GREEN, BLACK)
    assert load(seen, tmp_path).tolist() == [[True, True, True, False]]
    assert load(seen, tmp_path, 100).tolist() == [[True, True, False, False]]


def test_a_palette_without_background_is_refused(tmp_path: Path) -> None:
    image = make_palette(np.where(SHAPE, 1, 0), RED, GREEN)
    with pytest.raises(OSError, match=r"m\.png: .*no black in the picture.*save it in gray"):
        load(image, tmp_path)


@try_examples(60)
@given(data=st.data())
def test_any_palette_with_black_gives_its_other_colours_or_its_indices(data: st.DataObject) -> None:
    colour = st.tuples(*[st.integers(0, 255)] * 3)
    colours = data.draw(st.lists(colour, min_size=2, max_size=9))
    place = data.draw(st.integers(0, len(colours) - 1))
    colours[place] = BLACK
    indices = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, len(colours), (5, 7))
    indices[0, 0] = place
    image = make_palette(indices, *colours)
    seen = np.asarray(image.convert("RGB")).any(axis=-1)
    expected = indices > 0 if colours[0] == BLACK else seen
    assert np.array_equal(find_defect(image, 0).defect, expected)


def test_a_bmp_that_pillow_takes_for_another_is_refused(tmp_path: Path) -> None:
    """With a palette of black and white alone, a byte a pixel; Pillow reads a bit a pixel."""
    black_white = make_palette(SHAPE, BLACK, WHITE)
    with pytest.raises(
        OSError, match=r"m\.bmp: .*a BMP of 8 bits with two colours.*save it as PNG"
    ):
        load(black_white, tmp_path, suffix=".bmp")
    assert np.array_equal(load(Image.fromarray(SHAPE), tmp_path, suffix=".bmp"), SHAPE)


# --- alpha


def with_alpha(colour: NDArray[np.bool_], alpha: NDArray[Any], mode: str) -> Image.Image:
    gray = Image.fromarray(colour.astype(np.uint8) * 255)
    image = gray.convert(mode[:-1])
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    assert image.mode == mode
    return image


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("colour", [False, True])
def test_a_shape_in_alpha_alone_is_refused(tmp_path: Path, mode: str, colour: bool) -> None:
    image = with_alpha(np.full_like(SHAPE, colour), SHAPE * 255, mode)
    with pytest.raises(OSError, match=r"m\.png: .*alpha has a shape.*without alpha"):
        load(image, tmp_path)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize(
    "alpha",
    [np.full(SHAPE.shape, 255), np.zeros(SHAPE.shape), SHAPE * 255, np.where(SHAPE, 255, 9)],
    ids=["opaque", "clear everywhere", "as the colours", "half"],
)
def test_alpha_that_says_nothing_else_changes_nothing(
    tmp_path: Path, mode: str, alpha: NDArray[Any]
) -> None:
    assert np.array_equal(load(with_alpha(SHAPE, alpha, mode), tmp_path), SHAPE)


def test_a_palette_with_alpha_is_one_of_the_two(tmp_path: Path) -> None:
    image = Image.new("PA", (2, 1))
    for alphas, refused in (((255, 255), False), ((0, 255), False), ((255, 0), True)):
        image.putdata([(0, alphas[0]), (1, alphas[1])])
        if refused:
            with pytest.raises(OSError, match="alpha has a shape"):
                load(image, tmp_path, suffix=".tif")
        else:
            assert load(image, tmp_path, suffix=".tif").tolist() == [[False, True]]


# --- several masks of one image, and values between


def test_masks_of_a_folder_are_united(tmp_path: Path) -> None:
    for name, part in (("000.png", SHAPE & (np.arange(16) < 6)), ("001.png", SHAPE)):
        Image.fromarray(part).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".x.png").touch()
    assert np.array_equal(load_mask(tmp_path), SHAPE)
    Image.fromarray(SHAPE.T).save(tmp_path / "002.png")
    with pytest.raises(OSError, match="masks of different sizes of one image"):
        load_mask(tmp_path)


def test_jpeg_and_many_levels_are_told_from_class_ids() -> None:
    for top, blurred in ((1, False), (9, False), (31, False), (200, True)):
        values = np.arange(20 * 20, dtype=np.uint8).reshape(20, 20) % (top + 1)
        assert find_defect(Image.fromarray(values), 0).is_blurred == blurred, top
    three = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    assert find_defect(three, 0, lossy=True).is_blurred
    assert not find_defect(three, 0).is_blurred
