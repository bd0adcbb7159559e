"""MPDD: six kinds of painted metal parts, 1024 px, several turned parts in a picture.

Page: https://github.com/stepanje/MPDD (Jezek et al., ICUMT 2021). Licence: CC BY-NC-SA 4.0. The
archive lies in a shared OneDrive folder without a direct address, and no checksum is published;
partial downloads that lack whole categories are common.
"""

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol, SplitCounts

# The sizes of the training halves are not published in a form that could be checked.
COUNTS = {
    "bracket_black": SplitCounts(None, 32, 47),
    "bracket_brown": SplitCounts(None, 26, 51),
    "bracket_white": SplitCounts(None, 30, 30),
    "connector": SplitCounts(None, 30, 14),
    "metal_plate": SplitCounts(None, 26, 71),
    "tubes": SplitCounts(None, 32, 69),
}

MPDD = DatasetSpec(
    name="mpdd",
    title="MPDD",
    page="https://github.com/stepanje/MPDD",
    licence="CC BY-NC-SA 4.0",
    archives=(Archive("MPDD.zip"),),
    categories={name: name.replace("_", " ") for name in COUNTS},
    protocols={
        "official": Protocol(
            "the test folders as released (458 images); used by everybody",
            list_mvtec_tree,
            COUNTS,
        )
    },
    instructions="Open the OneDrive folder linked on https://github.com/stepanje/MPDD and "
    "download the whole folder MPDD as one zip file.",
)
