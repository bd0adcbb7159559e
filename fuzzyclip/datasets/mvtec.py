"""MVTec AD: 15 categories of objects and textures, 700 to 1024 px.

Page: https://www.mvtec.com/company/research/datasets/mvtec-ad (Bergmann et al., CVPR 2019; IJCV
2021). Licence: CC BY-NC-SA 4.0. grid, screw and zipper are gray images; file names start again
at 000 in every defect's folder.
"""

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol, SplitCounts

COUNTS = {
    "bottle": SplitCounts(209, 20, 63),
    "cable": SplitCounts(224, 58, 92),
    "capsule": SplitCounts(219, 23, 109),
    "carpet": SplitCounts(280, 28, 89),
    "grid": SplitCounts(264, 21, 57),
    "hazelnut": SplitCounts(391, 40, 70),
    "leather": SplitCounts(245, 32, 92),
    "metal_nut": SplitCounts(220, 22, 93),
    "pill": SplitCounts(267, 26, 141),
    "screw": SplitCounts(320, 41, 119),
    "tile": SplitCounts(230, 33, 84),
    "toothbrush": SplitCounts(60, 12, 30),
    "transistor": SplitCounts(213, 60, 40),
    "wood": SplitCounts(247, 19, 60),
    "zipper": SplitCounts(240, 32, 119),
}

MVTEC = DatasetSpec(
    name="mvtec",
    title="MVTec AD",
    page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence="CC BY-NC-SA 4.0",
    archives=(
        Archive(
            "mvtec_anomaly_detection.tar.xz",
            urls=(
                "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
                "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            ),
            sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        ),
    ),
    categories={name: name.replace("_", " ") for name in COUNTS},
    protocols={
        "official": Protocol(
            "the test folders as released (1725 images); used by everybody",
            list_mvtec_tree,
            COUNTS,
        )
    },
    instructions="Follow the download link of https://www.mvtec.com/company/research/datasets/"
    "mvtec-ad/downloads (the direct address changes from time to time).",
)
