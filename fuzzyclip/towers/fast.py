"""The declared fast setting of a frozen backbone, meant to halve the processor time of an image.

`FAST` is the one place that says it. What each choice costs in quality is the curve that
`benchmarks/fast.py` measures, see docs/fast.md.
"""

from typing import Literal

from fuzzyclip.clip.backbone import imagine_image_tower
from fuzzyclip.clip.model_configs import read_model_config
from fuzzyclip.clip.towers import measure_patch
from fuzzyclip.utils.settings import BackboneSettings, Merged, Record, Share


class FastSetting(Record):
    """What is changed in the settings of a backbone.

    Attributes:
        side: of the input, as a share of the backbone's own; rounded to whole patches.
        merge, precision: as `BackboneSettings` has them.
    """

    side: Share
    merge: Merged = 0.0
    precision: Literal["float32", "int8"] = "float32"


#: 364 px in place of 518: 26 patches of 14 px a side in place of 37.
FAST = FastSetting(side=26 / 37)


def make_fast(settings: BackboneSettings, fast: FastSetting = FAST) -> BackboneSettings:
    """Settings of the same backbone with the fast setting.

    Raises:
        ValueError: there is no such model.
    """
    patch = measure_patch(imagine_image_tower(read_model_config(settings.model)))
    patches = max(1, round(fast.side * settings.image_size / patch))
    changes = {"image_size": patches * patch, "merge": fast.merge, "precision": fast.precision}
    return BackboneSettings.model_validate(settings.model_dump() | changes)


def explain_fast(plain: BackboneSettings, fast: BackboneSettings) -> str:
    """What the one does otherwise than the other, in words for cards, results and pages."""
    words = []
    if fast.image_size != plain.image_size:
        words.append(f"input of {fast.image_size} px in place of {plain.image_size}")
    if fast.merge != plain.merge:
        words.append(f"{100 * fast.merge:.0f} % of tokens merged")
    if fast.precision != plain.precision:
        words.append(f"{fast.precision} in place of {plain.precision}")
    return ", ".join(words)
