"""EFA training on stored tokens against training that runs the tower: `... efa_training.py`.

The peer's way (APRIL-GAN's description): every epoch sends every image through the frozen tower,
then the layers, softmax maps of two channels, focal and dice by plain autograd. Ours reads tokens.
ViT-L/14@336 with random weights at 518 px; both ways in one process. That both train the same
layers is tested (tests/method/test_efa_training.py, test_alignment.py). Prints lines: name, ratio,
goal.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from references import compute_dice, compute_focal, compute_maps  # noqa: E402

from benchmarks.shared import LARGE, draw_images  # noqa: E402
from fuzzyclip.clip.backbone import load_backbone  # noqa: E402
from fuzzyclip.clip.encoding import encode_images, load_pixels  # noqa: E402
from fuzzyclip.features.auxiliary import AuxiliarySet  # noqa: E402
from fuzzyclip.features.encode import write_category  # noqa: E402
from fuzzyclip.features.shards import compute_identity  # noqa: E402
from fuzzyclip.features.store import open_category  # noqa: E402
from fuzzyclip.images.decode import load_masks  # noqa: E402
from fuzzyclip.method.efa import Heads  # noqa: E402
from fuzzyclip.method.efa_training import read_batch, train_heads  # noqa: E402
from fuzzyclip.method.training_set import make_training_set  # noqa: E402

IMAGES, BATCH, EPOCHS = 8, 4, 6


def draw_masks(rows):
    """A square defect in every image; rows as an auxiliary set has them."""
    masks = []
    for image in map(Path, rows["image_path"]):
        mask = np.zeros((1024, 1024), dtype=np.uint8)
        mask[200:500, 300:700] = 255
        masks.append(str(image.with_name(f"mask_{image.name}")))
        Image.fromarray(mask).save(masks[-1])
    return rows.assign(
        mask_path=masks, mask_above=0, label=1, member="own/parts", name="parts",
        place=range(len(rows)),
    )  # fmt: skip


def train_as_the_peer(backbone, rows, text):
    """Seconds of one epoch through the tower."""
    size = (backbone.image_size, backbone.image_size)
    heads = Heads(len(backbone.blocks), backbone.vision_width, backbone.embed_dim)
    heads.to(backbone.device)
    optimizer = torch.optim.Adam(heads.parameters(), lr=1e-3, betas=(0.5, 0.999))
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        chosen = rows.iloc[first : first + BATCH]
        paths = [Path(path) for path in chosen["image_path"]]
        tokens = encode_images(backbone, load_pixels(paths, backbone, 2))[1]
        masks = torch.from_numpy(load_masks(chosen, backbone.image_size)).float()
        maps = compute_maps(heads(tokens), text, backbone.grid, size)
        loss = sum(
            compute_focal(maps[:, i], masks) + compute_dice(maps[:, i, 1], masks)
            for i in range(maps.shape[1])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def main():
    backbone = load_backbone(LARGE)
    text = F.normalize(torch.randn(768, 2), dim=0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rows = draw_masks(draw_images(root, IMAGES))
        write_category(root / "store", rows, backbone, batch_size=BATCH, workers=2)
        identity = compute_identity(backbone, list(rows["sha256"]))
        stored = open_category(root / "store", identity)
        auxiliary = AuxiliarySet(["parts"], rows, {"own/parts": stored})
        images = make_training_set(auxiliary, backbone, workers=2)
        peer = train_as_the_peer(backbone, rows, text)
        start = time.perf_counter()
        settings = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 1e-3, "seed": 0}
        train_heads(backbone, images, text, **settings)
        ours = (time.perf_counter() - start) / EPOCHS
        start = time.perf_counter()
        for first in range(0, IMAGES, BATCH):
            read_batch(images, {}, range(first, first + BATCH), epoch=1)
        reading = time.perf_counter() - start
    print(f"  an epoch of {IMAGES} images: peer {peer:.2f} s, ours {ours:.2f} s")
    print(f"efa-training    {peer / ours:.0f}  goal 30 (times faster per epoch)")
    print(f"efa-reading     {reading / ours:.2f}  goal below 1 (of a step, and beside it)")


if __name__ == "__main__":
    main()
