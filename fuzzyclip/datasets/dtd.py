"""DTD-Synthetic: twelve textures of DTD with painted defects, small pictures.

Page: https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1 (Aota et al., WACV
2023). Licence: not stated; built from DTD, for research. No checksum is published. The folder
holds one zip file a texture, some with a folder of their own inside, some without.
"""

from fuzzyclip.datasets.base.layouts import list_mvtec_tree
from fuzzyclip.datasets.base.spec import Archive, DatasetSpec, Protocol, SplitCounts

COUNTS = {
    "Blotchy_099": SplitCounts(100, 20, 80),
    "Fibrous_183": SplitCounts(100, 20, 80),
    "Marbled_078": SplitCounts(100, 20, 80),
    "Matted_069": SplitCounts(100, 20, 79),
    "Mesh_114": SplitCounts(100, 36, 80),
    "Perforated_037": SplitCounts(100, 20, 80),
    "Stratified_154": SplitCounts(100, 20, 80),
    "Woven_001": SplitCounts(100, 30, 70),
    "Woven_068": SplitCounts(100, 51, 79),
    "Woven_104": SplitCounts(100, 20, 80),
    "Woven_125": SplitCounts(100, 20, 79),
    "Woven_127": SplitCounts(100, 80, 80),
}

DTD = DatasetSpec(
    name="dtd",
    title="DTD-Synthetic",
    page="https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1",
    licence="not stated (built from DTD; research use)",
    archives=(Archive("DTD-Synthetic.zip"),),
    categories={name: name.split("_")[0].lower() for name in COUNTS},
    protocols={
        "official": Protocol("the test folders as released (1304 images)", list_mvtec_tree, COUNTS)
    },
    instructions="Open https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1 "
    "and download the folder DTD-Synthetic as one zip file (zip files inside it may stay).",
)
