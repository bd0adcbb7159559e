"""A step of RPL's training against re-encoding its images: `python benchmarks/rpl_training.py`.

The peer trains the same prompts but runs each step's 16 images through the frozen image tower
anew, as code does that loads images in its training loop, and the text tower at every position.
Ours takes class features from the store and leaves out what no learned token can change. Two
models: the sample at its own size, all 16 images measured; and ViT-L/14 at 518 px with random
weights, where ONE image is measured and counted 16 times. The prompts are those of the defaults,
around the stack of VisA's names. Ways take turns; each counts with its fastest turn, because what
else runs on a machine only ever adds time. Prints a line: name, ratio, goal.
"""

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared import LARGE, SAMPLE  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import encode_images, normalise  # noqa: E402
from fuzzyclip.clip.prompts import stack_names  # noqa: E402
from fuzzyclip.datasets import get_dataset  # noqa: E402
from fuzzyclip.method.rpl import (  # noqa: E402
    PromptLearner,
    compute_classification,
    compute_text_regularisation,
)
from fuzzyclip.utils.settings import PromptShape  # noqa: E402

BATCH, TEMPERATURE = 16, 1 / 0.07
ROUNDS, STEPS = 3, 5  # steps of training follow one another, so they are measured in a row


def build_steps(backbone):
    """One training step on class features (16, D): the quick way and the plain one."""
    stack = stack_names(list(get_dataset("visa").categories))
    learner = PromptLearner(backbone, stack, PromptShape())
    assert learner.start is not None
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    labels = (torch.arange(BATCH) % 2).to(backbone.device)
    target = normalise(torch.randn(2, backbone.embed_dim)).to(backbone.device)

    def step(forward, images):
        text_embed = normalise(forward(backbone))  # (2, D)
        cls = compute_classification(images, text_embed, labels, TEMPERATURE)
        loss = cls + backbone.embed_dim * compute_text_regularisation(text_embed, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        quick, plain = learner(backbone), learner.forward_plainly(backbone)
    assert torch.allclose(quick, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    return lambda images: step(learner, images), lambda images: step(
        learner.forward_plainly, images
    )


def measure(run, turns):
    """Fastest seconds of some turns in a row, after one that brings the weights into the caches."""
    run()
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def compare(backbone, measured, rounds):
    """Fastest seconds of a quick step, a plain one, and 16 images, of which some are measured."""
    torch.manual_seed(0)
    quick, plain = build_steps(backbone)
    images = normalise(torch.randn(BATCH, backbone.embed_dim))
    size = backbone.image_size
    pixels = torch.randn(measured, 3, size, size)
    ways = {
        "quick": (lambda: quick(images), STEPS),
        "plain": (lambda: plain(images), STEPS),
        "images": (lambda: encode_images(backbone, pixels), 1),
    }
    spent = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (run, turns) in ways.items():
            spent[name].append(measure(run, turns))
    seconds = {name: min(times) for name, times in spent.items()}
    seconds["images"] *= BATCH / measured
    for name, value in seconds.items():
        print(f"  {name:6}: {1000 * value:9.1f} ms")
    return seconds


def main(rounds):
    for name, settings, measured, goal, text_goal in (
        ("sample", SAMPLE, BATCH, 5, 1.0),
        ("large", LARGE, 1, 300, 1.3),
    ):
        backbone = load_backbone(settings, allow_unverified=True, device="cpu")
        seconds = compare(backbone, measured, rounds)
        ratio = (seconds["plain"] + seconds["images"]) / seconds["quick"]
        print(f"rpl-step-{name:7} {ratio:.1f}  goal {goal} (times faster than re-encoding images)")
        ratio = seconds["plain"] / seconds["quick"]
        print(f"rpl-text-{name:7} {ratio:.2f}  goal {text_goal} (times faster than the plain way)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
