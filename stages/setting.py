"""What may be said of a run's numbers: whether they stand beside the paper's."""

from collections.abc import Mapping
from typing import Any

from fuzzyclip.report.tables import PAIRS
from stages.schema import Params

SAMPLE_DATA_NOTE = (
    "Drawn sample images: a demonstration of the method, not comparable with any published number."
)
SAMPLE_CLIP_NOTE = (
    "The sample CLIP was pretrained on drawings alone: for demonstration, not for inspection."
)


def is_paper_setting(
    params: Params, tested: Mapping[str, Mapping[str, Any]], any_pairs: bool = False
) -> bool:
    """Whether the run may stand beside the paper's numbers: its data, backbone and pairs.

    Args:
        params: of the run.
        tested: facts of the datasets it was measured on.
        any_pairs: whether other auxiliary sets than the main tables' will do (Table 6).
    """
    clip = params.backbones[params.backbone]
    pairs = {dataset: name for dataset, name in params.pairs.items() if dataset in PAIRS}
    papers_pairs = any_pairs or all(PAIRS[dataset] == name for dataset, name in pairs.items())
    return (
        params.data.source == "official"
        and clip.model in ("ViT-L-14-336", "ViT-L-14-336-quickgelu")
        and clip.weights != "random"
        and clip.image_size == 518
        and clip.blocks == (6, 12, 18, 24)
        and papers_pairs
        and all(tested[name]["complete"] for name in pairs)
    )


def list_sample_notes(params: Params) -> list[str]:
    """What is to be said where the built-in sample is used."""
    notes = [SAMPLE_DATA_NOTE] if params.data.source == "sample" else []
    return [*notes, SAMPLE_CLIP_NOTE] if params.backbone == "sample" else notes
