"""The declared fast setting, applied to towers of several patches and sizes."""

import pytest
from backbones import load_clip

from fuzzyclip.towers.fast import FAST, FastSetting, explain_fast, make_fast


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("timm/vit_small_patch14_dinov2", 518, 364),
        ("ViT-L-14-336", 518, 364),
        ("ViT-B-16", 512, 352),
        ("ViT-S-32-alt", 32, 32),  # a patch is left
    ],
)
def test_the_side_is_a_whole_number_of_patches(model, size, expected):
    plain = load_clip("timm/test_vit", image_size=64).settings
    plain = plain.model_copy(update={"model": model, "image_size": size})
    fast = make_fast(plain, FastSetting(side=FAST.side, merge=0.25, precision="int8"))
    assert fast == plain.model_copy(
        update={"image_size": expected, "merge": 0.25, "precision": "int8"}
    )
    smaller = "" if expected == size else f"input of {expected} px in place of {size}, "
    assert explain_fast(plain, fast) == f"{smaller}25 % of tokens merged, int8 in place of float32"


def test_the_declared_setting_changes_something():
    plain = load_clip("timm/test_vit", image_size=160).settings
    fast = make_fast(plain)
    assert explain_fast(plain, fast)
    assert load_clip(fast.model, **fast.model_dump(include={"image_size", "merge"})).grid < (10, 10)
