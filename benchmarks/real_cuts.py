"""Methods without text on real photos: two small cuts, a real tower, both directions.

    python benchmarks/real_cuts.py ARCHIVES --tower timm/vit_small_patch14_dinov2 --out FILE.csv

ARCHIVES is a folder with archives of VisA and of KolektorSDD under their official names, whole or
cut. What is trained learns from the test images of one and is tested on the other; good parts are
normal training images of the tested category. Every method has three seeds: of its training, of the
good parts, of a batch's references. Features are stored beside `--out`, which gets a line a method,
seed and category as each is measured: a run that was killed goes on. Prints means and deviations.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.baselines.registry import build_method  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.name_encoder import NameEncoder  # noqa: E402
from fuzzyclip.datasets import get_dataset  # noqa: E402
from fuzzyclip.datasets.fetching.fetch import fetch_dataset  # noqa: E402
from fuzzyclip.datasets.indexing import build_index  # noqa: E402
from fuzzyclip.evaluation.category import (  # noqa: E402
    Category,
    choose_references,
    encode_references,
    evaluate_category,
)
from fuzzyclip.features.auxiliary import AuxiliarySet  # noqa: E402
from fuzzyclip.features.encode import write_category  # noqa: E402
from fuzzyclip.features.kinds import TOKENS  # noqa: E402
from fuzzyclip.features.shards import compute_identity  # noqa: E402
from fuzzyclip.features.store import open_category  # noqa: E402
from fuzzyclip.images.index_file import place_rows  # noqa: E402
from fuzzyclip.method.interface import Learned, Target, UnlabelledBatch, order_images  # noqa: E402
from fuzzyclip.method.training_set import make_training_set  # noqa: E402
from fuzzyclip.towers import find_tower  # noqa: E402
from fuzzyclip.utils.prefetch import release_memory  # noqa: E402
from fuzzyclip.utils.tables import write_csv  # noqa: E402

#: Dataset and the category of it that a cut holds.
CUTS = {"visa": "capsules", "sdd": "electrical commutators"}
SEEDS = (0, 1, 2)
WITHOUT_TEXT = {"text": False}
#: Title to method and settings; a name's seeds are drawn apart.
TRIED = {
    "text-free pairs": ("text_free", {}),
    "discriminants": ("fuzzyclip_plus", WITHOUT_TEXT | {"map_evidence": ("discriminants",)}),
    "own image": ("fuzzyclip_plus", WITHOUT_TEXT | {"map_evidence": ("own_image",)}),
    "FuzzyCLIP+ without text": ("fuzzyclip_plus", WITHOUT_TEXT),
    "1 good part": ("nearest", {"shots": 1}),
    "2 good parts": ("nearest", {"shots": 2}),
    "4 good parts": ("nearest", {"shots": 4}),
    "batch": ("mutual", {}),
}
KEYS = ["tested", "method", "seed"]
#: Columns of a result that say nothing here.
LEFT = ("variant", "prompt")
SHOWN = ("pixel_ap", "pixel_aupro", "pixel_auroc", "image_auroc")


def spread(rows, count):
    """So many rows' labels of an index, evenly spaced from the first to the last."""
    steps = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return rows.index[steps.round().astype(int)]


class Cut:
    """A cut's only category: test images with their features, and normal training images.

    `images` of each label are tested, from all over their order, in which a dataset's small defects
    may come first; None tests all.
    """

    def __init__(self, name, archives, folder, backbone, images=None):
        spec, root = get_dataset(name), folder / name
        if not root.is_dir():
            fetch_dataset(spec, root, archives_dir=archives, download=False, allow_unverified=True)
        index = build_index(
            spec, root, protocol=spec.default_protocol, categories=[CUTS[name]],
            expect_counts=False,
        )  # fmt: skip
        rows = place_rows(index.frame, root)
        self.training = rows[rows["split"] == "train"].reset_index(drop=True)
        tested = rows[rows["split"] == "test"]
        if images is not None:
            places = [spread(own, images) for _, own in tested.groupby("label")]
            tested = tested.loc[np.sort(np.concatenate(places))]
        tested = tested.reset_index(drop=True)
        store = folder / f"features-{backbone.fingerprint[:16]}" / name
        write_category(store, tested, backbone, workers=2)
        features = open_category(store, compute_identity(backbone, list(tested["sha256"]), TOKENS))
        self.category = Category(name, CUTS[name], tested, features, backbone, 2)

    def as_auxiliary(self):
        """Its test images as what methods learn from."""
        own = self.category
        member = f"{own.dataset}/{own.name}"
        columns = {"member": member, "name": own.name, "place": range(len(own.rows))}
        rows = own.rows.assign(**columns, mask_above=0)
        return make_training_set(
            AuxiliarySet([own.name], rows, {member: own.features}), own.backbone, workers=2
        )

    def as_target(self, seed):
        """What a method may look at when it is tested here."""
        order = order_images(list(self.category.rows["sha256"]), seed)

        def load_references(count):
            return encode_references(
                choose_references(self.training, count, seed), self.category.backbone
            )

        batch = UnlabelledBatch(
            len(order), lambda places: self.category.read_tokens([order[p] for p in places])
        )
        name = self.category.name
        return Target(name, [name], load_references, batch)


def measure(title, seed, tested, learned_from, scratch):
    """A line: method, seed, metrics in percent."""
    name, settings = TRIED[title]
    method = build_method(name, settings)
    encode = NameEncoder(tested.category.backbone, lambda prompts: None)
    learned = Learned()
    if method.trains:
        learned = method.fit(encode, learned_from.as_auxiliary(), seed)
    scorers = method.build_variants(encode, tested.as_target(seed), learned)
    result = evaluate_category(
        tested.category, scorers, shown=method.name, scratch=scratch, sigma=method.sigma
    )
    release_memory()
    (line,) = result.table
    return {"tested": tested.category.dataset, "method": title, "seed": seed} | line


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archives", type=Path)
    parser.add_argument("--tower", default="timm/vit_small_patch14_dinov2")
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TRIED, default=[*TRIED])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    chosen = parser.parse_args()
    settings = find_tower(chosen.tower, image_size=chosen.image_size)
    backbone = load_backbone(settings)
    folder = chosen.out.parent / "real-cuts"
    folder.mkdir(parents=True, exist_ok=True)
    cuts = {name: Cut(name, chosen.archives, folder, backbone) for name in CUTS}
    done = pd.read_csv(chosen.out) if chosen.out.is_file() else pd.DataFrame(columns=KEYS)
    for tested in cuts.values():
        (other,) = (cut for cut in cuts.values() if cut is not tested)
        for title in chosen.only:
            for seed in chosen.seeds:
                key = (tested.category.dataset, title, seed)
                if key in set(done[KEYS].itertuples(index=False, name=None)):
                    continue
                line = measure(title, seed, tested, other, folder / "scratch")
                line = {name: value for name, value in line.items() if name not in LEFT}
                done = pd.concat([done, pd.DataFrame([line])], ignore_index=True)
                write_csv(chosen.out, done)
                print({key: line[key] for key in (*KEYS, *SHOWN)}, flush=True)
    table = done[done["method"].isin(TRIED)]
    groups = table.groupby(["tested", "method"], sort=False)[[*SHOWN]]
    print(groups.mean().round(1).to_string())
    print(groups.std().round(1).to_string())


if __name__ == "__main__":
    main()
