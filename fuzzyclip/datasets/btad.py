"""BTAD (beanTech): three industrial products, 600 to 1600 px.

Page: https://github.com/pankajmishra000/VT-ADL (Mishra et al., ISIE 2021). Licence: CC BY-SA 4.0
by the authors' README (other sources say CC BY-NC-SA 4.0). Folders are ok/ko; images are bmp, png
and bmp, masks png, png and bmp (product 03, three channels), so that only the stem pairs them.
"""

from functools import partial

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol, SplitCounts

COUNTS = {
    "01": SplitCounts(400, 21, 49),
    "02": SplitCounts(399, 30, 200),
    "03": SplitCounts(1000, 400, 41),
}

BTAD = DatasetSpec(
    name="btad",
    title="BTAD (beanTech)",
    page="https://github.com/pankajmishra000/VT-ADL",
    licence="CC BY-SA 4.0",
    archives=(
        Archive(
            "btad.zip",
            urls=(
                "https://avires.dimi.uniud.it/papers/btad/btad.zip",
                "http://avires.dimi.uniud.it/papers/btad/btad.zip",
            ),
            sha256="461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        ),
    ),
    categories={"01": "metal", "02": "wood", "03": "metal"},
    protocols={
        "official": Protocol(
            "the test folders as released (741 images); used by everybody",
            partial(list_mvtec_tree, normal=("ok",)),
            COUNTS,
        )
    },
)
