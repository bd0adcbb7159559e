"""What SAA+ was told of each category of MVTec AD and VisA, by hand: published facts.

From the settings that its authors' code has for both datasets (caoyunkang/Segment-Any-Anomaly,
commit 23acbd9). What stands at its default is left out (`CategoryPrompts`). Categories of other
datasets have the defaults, those of most of MVTec AD's textures.
"""

from fuzzyclip.baselines.saa.prompts import CategoryPrompts as Known

#: By names with blanks for underscores.
MVTEC = {
    "bottle": Known(("broken part. contamination. white broken.",), area=0.3),
    "cable": Known(("crack. flawed golden wire. black hole.",)),
    "capsule": Known(("white crack. hole.",), area=0.6),
    "carpet": Known(("black hole", "thread", "defect.")),
    "grid": Known(("irregular pattern", "defect.")),
    "hazelnut": Known(("white print. crack. thread.",)),
    "leather": Known(),
    "metal nut": Known(
        ("blue defect. black defect. red defect. scratch.",), background="nut", area=1.0
    ),
    "pill": Known(("red defect. yellow defect. blue defect. crack. scratch.",), area=1.0),
    "screw": Known(area=0.1),
    "tile": Known(),
    "toothbrush": Known(area=0.5),
    "transistor": Known(area=1.0),
    "wood": Known(),
    "zipper": Known(("crack. broken leather.",), area=0.5),
}
VISA = {
    "candle": Known(
        ("color defect. hole. black defect. wick hole. spot.",), objects=4, masks=1, area=0.3
    ),
    "capsules": Known(
        ("black melt. dark liquid.", "bubble"), thing="capsule", objects=20, masks=15, area=1.0
    ),
    "cashew": Known(
        ("yellow defect. black defect. small holes. scratch. breakage. crack.", "small spot."),
        masks=17,
        area=0.05,
    ),
    "chewinggum": Known(
        ("crack. yellow defect. color defect. black defect. thread.",), masks=50, area=0.2
    ),
    "fryum": Known(
        ("broken part. purple defect. black defect. red defect. color defect. color crack. break",),
        area=1.0,
    ),
    "macaroni1": Known(
        ("broken part. red defect. black defect. crack. hole. scratch. color crack.",),
        thing="macaroni",
        background="macaroni",
        objects=4,
        area=0.3,
    ),
    "macaroni2": Known(
        ("broken part. red defect. black defect. crack. hole. scratch.", "edge. spot. chip."),
        thing="macaroni",
        background="macaroni",
        objects=4,
        masks=50,
        area=0.3,
    ),
    "pcb1": Known(
        ("bent wire on pcb", "white scratch on pcb", "white defect on pcb", "white circle."),
        thing="printed_circuit_board",
        background="pcb",
        masks=1,
        area=0.3,
    ),
    "pcb2": Known(
        ("bent wire", "pointed", "wire"), thing="pcb", background="pcb", masks=9, area=0.3
    ),
    "pcb3": Known(
        ("bent wire on pcb", "scratch on pcb", "defect on pcb"),
        thing="printed_circuit_board",
        background="pcb",
        area=0.3,
    ),
    "pcb4": Known(
        (
            *("yellow paper on pcb", "yellow defect on pcb", "black defect on pcb"),
            *("color defect on pcb", "scratch on pcb", "defect on pcb"),
        ),
        thing="pcb",
        background="pcb",
        masks=7,
        area=0.3,
    ),
    "pipe fryum": Known(
        ("broken part. red defect. black defect. crack. hole. scratch.",),
        background="fryum",
        masks=19,
        area=0.3,
    ),
}
CATEGORIES = MVTEC | VISA
