"""What each piece of FuzzyCLIP+ is worth, on auxiliary sets alone.

    python benchmarks/plus.py choices    # every switch; half an hour a seed on one core
    python benchmarks/plus.py streams    # tokens of the V-V path in place of the plain ones

Two categories of an auxiliary set are left out in turn, the others learned from, and those two
tested: what is tested by the pipeline is looked at nowhere here. Reads the features that `make
repro` stores, `streams` those of `make methods`. Writes a line a setting, set, seed and category to
`--out`, from which a run that was killed goes on, and prints the tables of docs/plus.md.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fuzzyclip.baselines.fuzzyclip_plus import draw, fit_directions  # noqa: E402
from fuzzyclip.baselines.fuzzyclip_plus.joining import Joint, average_top  # noqa: E402
from fuzzyclip.baselines.registry import build_method  # noqa: E402
from fuzzyclip.baselines.text_free import TextFree  # noqa: E402
from fuzzyclip.clip.encoding import normalise  # noqa: E402
from fuzzyclip.evaluation.category import Category, evaluate_category  # noqa: E402
from fuzzyclip.evaluation.metrics import (  # noqa: E402
    compute_image_metrics,
    compute_pixel_metrics,
)
from fuzzyclip.method.efa import compute_margins  # noqa: E402
from fuzzyclip.method.efa_training import train_heads  # noqa: E402
from fuzzyclip.method.fuzzyclip import FuzzyClip  # noqa: E402
from fuzzyclip.method.training_set import make_training_set  # noqa: E402
from fuzzyclip.utils.prefetch import release_memory  # noqa: E402
from fuzzyclip.utils.settings import EfaTest, EfaTraining  # noqa: E402
from fuzzyclip.utils.tables import write_csv  # noqa: E402
from stages import paths  # noqa: E402
from stages.clip import load_clip, make_encoder  # noqa: E402
from stages.params import choose_settings, read_params, resolve  # noqa: E402
from stages.stored import open_auxiliary, open_features  # noqa: E402

SETS = ("mvtec", "visa")
#: So many times some categories are left out, each once.
FOLDS = 4
SHOWN = {"pixel_ap": "pixel AP", "pixel_aupro_std": "AUPRO", "image_auroc": "image AUROC"}
#: What differs from FuzzyCLIP+ as it is, after the parts of FuzzyCLIP were trained once.
TRIED = {
    "FuzzyCLIP+ as it is": {},
    "map: layers": {"map_evidence": ("layers",)},
    "map: discriminants": {"map_evidence": ("discriminants",)},
    "map: own image": {"map_evidence": ("own_image",)},
    "map: layers, discriminants": {"map_evidence": ("layers", "discriminants")},
    "map: layers, own image": {"map_evidence": ("layers", "own_image")},
    "map: discriminants, own image": {"map_evidence": ("discriminants", "own_image")},
    "image: prompts": {"image_evidence": ("prompts",)},
    "image: discriminant": {"image_evidence": ("discriminant",)},
    "image: map": {"image_evidence": ("map",)},
    "image: prompts, discriminant": {"image_evidence": ("prompts", "discriminant")},
    "image: prompts, map": {"image_evidence": ("prompts", "map")},
    "image: discriminant, map": {"image_evidence": ("discriminant", "map")},
    "shrinkage 0.1": {"shrinkage": 0.1},
    "shrinkage 0.9": {"shrinkage": 0.9},
    "top 0.1 %": {"top": 0.001},
    "top 5 %": {"top": 0.05},
    "without text": {"text": False},
}
#: Smoothing is one for all variants of a pass.
UNSMOOTHED = "no smoothing"
PLAIN, UNIFORM, PAIRS = "FuzzyCLIP", "FuzzyCLIP, clusters weigh the same", "text-free pairs"


def hold(images):
    """A training set whose tokens and masks are in memory: it is read some hundred times."""
    every = range(len(images))
    tokens, masks = images.load_tokens(every), images.load_masks(every)
    return replace(
        images,
        load_tokens=lambda rows: tokens[list(rows)],
        load_masks=lambda rows: masks[list(rows)],
    )


def measure(name, seed, params, encode, scratch):
    """Lines of one set and seed: setting, left-out category and its metrics."""
    backbone, lines = encode.backbone, []
    images = hold(
        make_training_set(
            open_auxiliary(name, backbone), backbone, mosaics=paths.MOSAICS, workers=2
        )
    )
    settings = resolve(params.methods["fuzzyclip_plus"].settings, name, params.data.source)
    chosen = build_method("fuzzyclip_plus", settings)
    members = list(dict.fromkeys(images.members))
    for fold in range(FOLDS):
        left_out = members[fold::FOLDS]
        rows = [row for row, member in enumerate(images.members) if member not in left_out]
        known = images.select(rows)
        parts = chosen.fit_parts(encode, known, seed)
        learned = {}
        for title, changed in TRIED.items():
            method = replace(chosen, **changed)
            learned[title] = method, method.fit_evidence(encode, known, parts, seed)
        plain, pairs = FuzzyClip(), TextFree()
        learned |= {
            PLAIN: (plain, parts),
            UNIFORM: (replace(plain, test=EfaTest(weights="uniform")), parts),
            PAIRS: (pairs, pairs.fit(encode, known, seed)),
        }
        as_it_is = learned["FuzzyCLIP+ as it is"]
        for member in left_out:
            dataset, category = member.split("/")
            prompt = images.names[images.members.index(member)]
            tested, features = open_features(dataset, category, backbone)
            whole = Category(dataset, category, tested, features, backbone, 2)

            def score(built, sigma, whole=whole, prompt=prompt):
                scorers = {
                    title: method.build(encode, prompt, own)
                    for title, (method, own) in built.items()
                }
                result = evaluate_category(
                    whole, scorers, shown=next(iter(scorers)), scratch=scratch, sigma=sigma
                )
                return result.table

            unsmoothed = {
                UNSMOOTHED: as_it_is,
                **{title: learned[title] for title in (PLAIN, UNIFORM, PAIRS)},
            }
            smoothed = {title: each for title, each in learned.items() if title not in unsmoothed}
            smoothed |= {f"{title}, smoothed": learned[title] for title in (PLAIN, PAIRS)}
            for line in [*score(smoothed, chosen.sigma), *score(unsmoothed, 0.0)]:
                lines.append(
                    {"setting": line["variant"], "set": name, "seed": seed, "category": category}
                    | {metric: line[metric] for metric in SHOWN}
                )
            release_memory()
        print(f"{name}, seed {seed}: {fold + 1} of {FOLDS}", file=sys.stderr, flush=True)
    return lines


def show(table):
    """Means over categories, and their deviation over seeds, as a table of Markdown."""
    by_seed = table.groupby(["setting", "set", "seed"], sort=False)[[*SHOWN]].mean().reset_index()
    heads = [f"{name}, {title}" for name in SETS for title in SHOWN.values()]
    print("| setting | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(heads))
    for setting in dict.fromkeys(table["setting"]):
        cells = []
        for name in SETS:
            own = by_seed[(by_seed["setting"] == setting) & (by_seed["set"] == name)]
            for metric in SHOWN:
                spread = f" ± {own[metric].std():.1f}" if len(own) > 1 else ""
                cells.append(f"{own[metric].mean():.1f}{spread}")
        print(f"| {setting} | " + " | ".join(cells) + " |")


def measure_streams(name, seed, params, encode, scratch):
    """Lines of one set and seed: layers and discriminants of the tokens of either path."""
    backbone, lines = encode.backbone, []
    efa = choose_settings(EfaTraining, params, "efa.train", name)
    block = params.methods["sdp"]
    kind = build_method("sdp", resolve(block.settings, name, params.data.source)).kind
    stored = open_auxiliary(name, backbone, kind, block.features)
    whole = hold(make_training_set(stored, backbone, kind, workers=2))
    members = list(dict.fromkeys(whole.members))
    levels = whole.load_tokens([0]).shape[1] // 2
    for title, first in (("V-V path", 0), ("plain path, the same blocks", levels)):

        def load_tokens(rows, first=first):  # row 0 of a level is the class token
            return whole.load_tokens(rows)[:, first : first + levels, 1:]

        images = replace(whole, load_tokens=load_tokens)
        for fold in range(FOLDS):
            left_out = members[fold::FOLDS]
            known = images.select(
                [row for row, member in enumerate(images.members) if member not in left_out]
            )
            text = encode(list(dict.fromkeys(known.names)))
            heads, _ = train_heads(
                backbone, known, text, epochs=efa.epochs, batch_size=efa.batch_size,
                learning_rate=efa.learning_rate, seed=seed, levels=levels,
            )  # fmt: skip
            directions, _ = fit_directions(known, backbone, 0.5)
            for member in left_out:
                rows = [row for row, owner in enumerate(images.members) if owner == member]
                tokens, prompt = images.load_tokens(rows), images.names[rows[0]]
                with torch.no_grad():
                    mapped = heads(tokens)
                    test = encode([prompt])
                    values = {
                        "layers": compute_margins(mapped, test).mean(dim=1),
                        "discriminants": torch.einsum("blpw,lw->bp", normalise(tokens), directions),
                    }
                for what, value in values.items():
                    maps = draw(
                        Joint(torch.zeros(1), torch.ones(1), 1.0, 0.0), value[None], backbone
                    )
                    pixel = compute_pixel_metrics(maps.numpy(), images.load_masks(rows).numpy())
                    peaks = average_top(maps, 0.01).numpy()
                    measured = pixel | compute_image_metrics(peaks, images.labels[rows].numpy())
                    lines.append(
                        {"setting": f"{what}, {title}", "set": name, "seed": seed}
                        | {"category": member.split("/")[1]}
                        | {metric: 100 * measured[metric] for metric in SHOWN}
                    )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("choices", "streams"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.out = given.out or ROOT / "scratch" / f"plus-{given.what}.csv"
    run = measure if given.what == "choices" else measure_streams
    params = read_params()
    encode = make_encoder(load_clip(params), params.text)
    done = pd.read_csv(given.out) if given.out.is_file() else pd.DataFrame()
    for seed in given.seeds:
        for name in SETS:
            if len(done) and ((done["set"] == name) & (done["seed"] == seed)).any():
                continue
            with tempfile.TemporaryDirectory() as scratch:
                lines = run(name, seed, params, encode, Path(scratch))
            done = pd.concat([done, pd.DataFrame(lines)], ignore_index=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_csv(given.out, done)
    show(done)


if __name__ == "__main__":
    main()
