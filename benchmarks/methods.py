"""Cost of every method of the tables, beside its quality: `python benchmarks/methods.py`.

Pixels to map and score, text and building left out (once a category), but for texts that depend on
the image. All methods look at the same random images, taking turns after one to warm up; each
counts with its least processor time, which other programs hardly touch, over that of the bare image
tower. Peak memory is taken in a process of its own, above what that process held before the first
image (Linux; with the sample's CLIP alone). Trainable parameters are those that an optimizer was
given. Prints a line a method. The docs' picture is drawn from the file, by `make pictures`.

    --backbone vit_l_14_336   that key of params.yaml with random weights; else the sample's CLIP
    --quality TITLE=FILE      metrics/method_tables/means.csv of a run, repeatable; means are taken
    --out FILE                all columns as CSV
    --add FILE                a CSV made with another backbone, its parameters in a further column
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fuzzyclip.baselines.registry import build_method  # noqa: E402
from fuzzyclip.clip.backbone import Backbone, load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import encode_images, encode_text  # noqa: E402
from fuzzyclip.clip.name_encoder import NameEncoder  # noqa: E402
from fuzzyclip.features.kinds import TOKENS, FeatureKind  # noqa: E402
from fuzzyclip.method.efa import Heads  # noqa: E402
from fuzzyclip.method.interface import (  # noqa: E402
    Learned,
    Method,
    MethodUnavailableError,
    Target,
    TrainingSet,
    UnlabelledBatch,
)
from fuzzyclip.method.rpl import PromptLearner  # noqa: E402
from fuzzyclip.method.scorer import Scorer, build_trained, score_batch  # noqa: E402
from fuzzyclip.utils.prefetch import release_memory  # noqa: E402
from fuzzyclip.utils.settings import RplSettings  # noqa: E402
from fuzzyclip.utils.tables import read_table, write_csv  # noqa: E402
from stages.method_tables import name_group  # noqa: E402
from stages.params import read_params, resolve  # noqa: E402
from stages.schema import Tower  # noqa: E402

OURS = "fuzzyclip"
#: The paper's partition of VisA has two clusters.
CLUSTERS = 2
STACK = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum"
MEMORY_IMAGES = 32
#: Images of a batch that tell what is usual: as many as are compared with.
BATCH_IMAGES = 32
#: Metrics of quality.
QUALITY = ("pixel_ap", "pixel_aupro_std", "image_auroc")


@dataclass(frozen=True)
class Contender:
    """A method, trained and ready to look at images."""

    title: str
    group: str
    kind: FeatureKind
    scorer: Scorer
    backbone: Backbone
    sigma: float
    parameters: int

    def look(self, pixels: torch.Tensor) -> None:
        image_embed, tokens = self.kind.encode(self.backbone, pixels)
        score_batch(self.scorer, tokens, image_embed, self.backbone, self.sigma)


def load_clip(name: str, tower: Tower | None = None) -> Backbone:
    """A backbone of params.yaml, or a tower in its place; random weights but for the sample's."""
    chosen = (tower or Tower()).change(read_params(ROOT / "params.yaml").backbones[name])
    own = name == "sample"
    places = {
        "model": str(ROOT / chosen.model) if own else chosen.model,
        "weights": str(ROOT / chosen.weights) if own else "random",
    }
    return load_backbone(chosen.model_copy(update=places), allow_unverified=True)


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Numbers of parameters that optimizers are given in the block."""
    numbers: list[int] = []
    plain = torch.optim.Optimizer.add_param_group

    def count(optimizer: torch.optim.Optimizer, group: dict) -> None:
        plain(optimizer, group)
        numbers.append(sum(each.numel() for each in group["params"] if each.requires_grad))

    torch.optim.Optimizer.add_param_group = count
    try:
        yield numbers
    finally:
        torch.optim.Optimizer.add_param_group = plain


def draw_pixels(backbone: Backbone, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = backbone.image_size
    return torch.randn(count, 3, size, size, generator=generator)


def train_a_little(method: Method, encode: NameEncoder) -> tuple[Learned, int]:
    """Results of a training on two images, and how many numbers it may change."""
    if not method.trains:
        return Learned(), 0
    backbone = encode.backbone
    image_embed, tokens = method.kind.encode(backbone, draw_pixels(backbone, 2))
    masks = torch.zeros(2, backbone.image_size, backbone.image_size, dtype=torch.bool)
    masks[1, 10:40, 10:40] = True
    images = TrainingSet(
        image_embed,
        lambda rows: tokens[list(rows)],
        lambda rows: masks[list(rows)],
        torch.tensor([0, 1]),
        names=["nut", "nut"],
        members=["parts/nut", "parts/nut"],
    )
    with counted() as counts:
        learned = method.fit(encode, images, 0)
    return learned, sum(counts)


def prepare(name: str, run: str, clips: dict[str, Backbone]) -> Contender:
    """A method with the settings of params.yaml, trained in one epoch where it trains."""
    if name == OURS:
        return prepare_ours(clips[run])
    params = read_params(ROOT / "params.yaml")
    block = params.methods[name]
    source = "sample" if run == "sample" else "official"
    settings = resolve(block.settings, "visa", source, f"methods.{name}")
    settings |= {key: 1 for key in ("epochs", "prompt_epochs") if key in settings}
    method = build_method(name, settings)
    chosen = block.tower if run in params.towers[block.tower] else run
    if chosen not in clips:
        clips[chosen] = load_clip(run, params.towers[chosen][run])
    backbone = clips[chosen]
    encode = NameEncoder(backbone, lambda prompts: encode_text(backbone, prompts))
    learned, parameters = train_a_little(method, encode)
    scorer = method.build_variants(encode, make_target(backbone), learned)[method.name]
    group = group_method(method, settings)
    return Contender(method.title, group, method.kind, scorer, backbone, method.sigma, parameters)


def make_target(backbone: Backbone) -> Target:
    """A category with as many good parts and other tested images as anybody asks for, all noise."""

    def load(count: int) -> torch.Tensor:
        parts = draw_pixels(backbone, count).split(1)
        return torch.cat([encode_images(backbone, part)[1] for part in parts])

    batch = UnlabelledBatch(BATCH_IMAGES, lambda places: load(len(places)))
    return Target("metal nut", ["metal nut"], load, batch)


def group_method(method: Method, settings: Mapping[str, Any]) -> str:
    """What the method's results rest on, as metrics/method_tables tells it."""
    made = {
        "batch": getattr(method, "uses_batch", False),
        "auxiliary": "visa" if method.trains else None,
        "settings": settings,
    }
    return name_group({method.name: {"visa": made}}, method.name)


def prepare_ours(backbone: Backbone) -> Contender:
    """FuzzyCLIP with random layers of two clusters, and RPL's default prompts."""
    width, depth = backbone.vision_width, backbone.embed_dim
    heads = [Heads(len(backbone.blocks), width, depth) for _ in range(CLUSTERS)]
    texts = F.normalize(torch.randn(CLUSTERS, 2, depth), dim=-1).mT
    scorer = build_trained(backbone, "", heads, texts, texts[..., 0], 100.0, texts[0].T)
    block = read_params(ROOT / "params.yaml").rpl
    rpl = RplSettings(**resolve(block, "visa", "official"))
    learned = [*PromptLearner(backbone, STACK, rpl).parameters()]
    learned += [parameter for layers in heads for parameter in layers.parameters()]
    count = sum(parameter.numel() for parameter in learned)
    return Contender("FuzzyCLIP", "trained", TOKENS, scorer, backbone, 0.0, count)


def read_status(name: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measure_memory(name: str, run: str, batch: int) -> float:
    """Peak above what the process held before, in MiB; in a process of its own."""
    ready = prepare(name, run, {run: load_clip(run)})
    pixels = draw_pixels(ready.backbone, MEMORY_IMAGES)
    release_memory()
    before = read_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for part in pixels.split(batch):
        ready.look(part)
    return read_status("VmHWM") - before


def measure_apart(name: str, run: str, batch: int) -> float:
    """`measure_memory` in a process of its own."""
    command = [sys.executable, __file__, "--backbone", run, "--memory-of", name]
    done = subprocess.run(
        [*command, "--batch", str(batch)], check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1])


def measure_times(
    methods: dict[str, Contender], backbone: Backbone, batch: int, rounds: int
) -> dict[str, float]:
    """Least processor time over the bare tower's, methods taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("bare", *methods)}
    clips = {id(ready.backbone): ready.backbone for ready in methods.values()}
    pixels = {key: draw_pixels(clip, batch) for key, clip in clips.items()}
    bare = draw_pixels(backbone, batch)
    for turn in range(rounds + 1):
        for name in seconds:
            start = time.process_time()
            if name == "bare":
                encode_images(backbone, bare)
            else:
                methods[name].look(pixels[id(methods[name].backbone)])
            if turn:  # the first warms up
                seconds[name].append(time.process_time() - start)
    return {name: min(seconds[name]) / min(seconds["bare"]) for name in methods}


def read_quality(given: list[str]) -> pd.DataFrame:
    """Means over datasets by method, a column a metric and run."""
    columns = {}
    for argument in given:
        title, _, file = argument.partition("=")
        if not file:
            raise SystemExit(f"--quality {argument}: TITLE=FILE is needed")
        means = read_table(Path(file)).groupby("variant")[[*QUALITY]].mean()
        columns |= {f"{title}: {metric}": means[metric] for metric in QUALITY}
    return pd.DataFrame(columns)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="sample")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quality", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    run, own = given.backbone, given.backbone == "sample"
    batch, rounds = given.batch or (8 if own else 1), given.rounds or (9 if own else 2)
    if given.memory_of:
        print(measure_memory(given.memory_of, run, batch))
        return
    clips, methods = {run: load_clip(run)}, {}
    for name in (*read_params(ROOT / "params.yaml").methods, OURS):
        try:
            methods[name] = prepare(name, run, clips)
        except MethodUnavailableError as error:
            print(f"  {name}: left out, {error}")
    times = measure_times(methods, clips[run], batch, rounds)
    lines = []
    for name, ready in methods.items():
        memory = measure_apart(name, run, batch) if own else float("nan")
        lines.append(
            {"variant": name, "method": ready.title, "group": ready.group}
            | {"kind": ready.kind.name.split("-")[0]}
            | {"parameters": ready.parameters, "time": times[name], "memory_mib": memory}
        )
        print(
            f"method-{name:13} {times[name]:7.2f} of the bare tower, {ready.parameters:>9} "
            f"trainable parameters, {memory:6.0f} MiB",
            flush=True,
        )
    table = pd.DataFrame(lines).set_index("variant")
    if given.add:
        other = read_table(given.add).set_index("variant")[["parameters"]]
        table = table.join(other.add_prefix("large: "))
    table = table.join(read_quality(given.quality))
    if given.out:
        write_csv(given.out, table.reset_index(), "%.2f")


if __name__ == "__main__":
    main()
