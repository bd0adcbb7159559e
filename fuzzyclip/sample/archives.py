"""The sample's archives: drawn parts under the official archive names of the seven datasets.

They go through the same fetching, extraction and indexing as the real archives; only their
checksums and counts are their own. Names, folders, image formats and mask values are those of the
datasets, with the quirks that break converters; the pictures are drawn, and a seed fixes the bytes.
"""

import csv
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzzyclip.datasets import get_dataset
from fuzzyclip.sample.defects import DEFECTS
from fuzzyclip.sample.draw import draw_part
from fuzzyclip.sample.evaluation_recipes import EVALUATION
from fuzzyclip.utils.files import compute_sha256, replace_file

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Member = tuple[str, bytes]  # name in the archive, content
NOTE = b"Drawn by code in this dataset's layout, for demonstration. Not the dataset itself.\n"
SIDES = (160, 176, 144, 192)  # square sizes, taken in turn
WIDE = ((144, 192), (152, 200), (168, 144), (144, 176))  # (H, W) of VisA, never square
ZIP_TIME = (2020, 1, 1, 0, 0, 0)
TAR_TIME = 1577836800  # the same moment, in seconds
JPEG_QUALITY = 95
EFFORT = 1  # of PNG and zip compression: drawn noise hardly shrinks, whatever the time spent


#: Suffix to the format and options of `PIL.Image.Image.save`.
FORMATS: dict[str, tuple[str, dict[str, int]]] = {
    ".jpg": ("JPEG", {"quality": JPEG_QUALITY}),
    ".png": ("PNG", {"compress_level": EFFORT}),
    ".bmp": ("BMP", {}),
}


def encode_image(pixels: Pixels, suffix: str) -> bytes:
    """Encode (H, W) gray or (H, W, 3) colour pixels in the format of a suffix of `FORMATS`."""
    buffer = io.BytesIO()
    name, options = FORMATS[suffix]
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.getvalue()


def to_gray(pixels: Pixels) -> Pixels:
    """Luma of a colour picture."""
    return np.asarray(Image.fromarray(pixels).convert("L"))  # (H, W, 3) -> (H, W)


def zip_members(members: Iterable[Member]) -> bytes:
    """A zip file in memory, for archives inside archives."""
    buffer = io.BytesIO()
    _write_zip(buffer, members)
    return buffer.getvalue()


def write_archive(path: Path, members: Iterable[Member]) -> None:
    """Write a .zip, .tar or .tar.xz file, as its suffix says, through a temporary name."""
    with replace_file(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".zip":
            _write_zip(file, members)
        elif path.suffix == ".xz":
            with lzma.LZMAFile(file, "wb", preset=0) as compressed:
                _write_tar(compressed, members)
        else:
            _write_tar(file, members)


def _write_zip(file: IO[bytes], members: Iterable[Member]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix on every system, for equal bytes
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content, compresslevel=EFFORT)


def _write_tar(file: IO[bytes], members: Iterable[Member]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), TAR_TIME, 0o644
            archive.addfile(info, io.BytesIO(content))


@dataclass(frozen=True)
class Order:
    """Categories to draw, with as many images each, under a seed."""

    dataset: str
    categories: tuple[str, ...]
    seed: int
    train_normal: int
    test_normal: int
    test_anomalous: int

    def draw(
        self, category: str, group: str, number: int, size: tuple[int, int], defect: str | None
    ) -> tuple[Pixels, Mask]:
        """One part, image (H, W, 3) and mask (H, W); other counts leave it as it is."""
        name = f"{self.dataset}/{category}"
        stream = zlib.crc32(f"{name}/{group}".encode())
        rng = np.random.default_rng([self.seed, stream, number])
        return draw_part(EVALUATION[name], rng, size, defect)


def defect_of(number: int) -> str:
    """Defects in turn."""
    return DEFECTS[number % len(DEFECTS)]


def black_white(mask: Mask) -> Pixels:
    """Mask as 0 and 255."""
    return mask.astype(np.uint8) * np.uint8(255)


def square(number: int) -> tuple[int, int]:
    """Size (H, W) of the number-th category."""
    side = SIDES[number % len(SIDES)]
    return side, side


def lay_out_mvtec(order: Order) -> Iterator[Member]:
    """MVTec AD: flat, text files at the root, grid gray, names restart in every defect folder."""
    yield "license.txt", NOTE
    yield "readme.txt", NOTE
    for number, category in enumerate(order.categories):
        yield from _mvtec_category(order, category, square(number), gray=category == "grid")


def lay_out_mpdd(order: Order) -> Iterator[Member]:
    """MPDD: MVTec's layout under a top folder, categories with underscores."""
    for number, category in enumerate(order.categories):
        for name, content in _mvtec_category(order, category, square(number)):
            yield f"MPDD/{name}", content


def lay_out_dtd(order: Order) -> Iterator[Member]:
    """DTD-Synthetic: a zip file a texture, every second one without a folder of its own inside."""
    for number, category in enumerate(order.categories):
        members = _mvtec_category(order, category, square(number), defect="bad")
        if number % 2:
            members = ((name.removeprefix(f"{category}/"), content) for name, content in members)
        yield f"DTD-Synthetic/dataset/{category}.zip", zip_members(members)


def _mvtec_category(
    order: Order, category: str, size: tuple[int, int], gray: bool = False, defect: str = ""
) -> Iterator[Member]:
    """One category in MVTec's layout; `defect` is a single folder in place of one a defect."""
    colour = to_gray if gray else np.asarray
    for split, amount in (("train", order.train_normal), ("test", order.test_normal)):
        for i in range(amount):
            image, _ = order.draw(category, split, i, size, None)
            yield f"{category}/{split}/good/{i:03d}.png", encode_image(colour(image), ".png")
    for i in range(order.test_anomalous):
        image, mask = order.draw(category, "bad", i, size, defect_of(i))
        folder, number = (defect, i) if defect else (defect_of(i), i // len(DEFECTS))
        name = f"{number:03d}"
        yield f"{category}/test/{folder}/{name}.png", encode_image(colour(image), ".png")
        truth = encode_image(black_white(mask), ".png")
        yield f"{category}/ground_truth/{folder}/{name}_mask.png", truth


def lay_out_visa(order: Order) -> Iterator[Member]:
    """VisA: .JPG, masks of class ids 1 to 9 that look black, 3 and 4 digits, a split file."""
    splits = []
    for index, category in enumerate(order.categories):
        size, rows = WIDE[index % len(WIDE)], []
        digits = 3 if category == "capsules" else 4  # as many as its official count needs
        for i in range(order.train_normal + order.test_normal):
            path = f"{category}/Data/Images/Normal/{i:0{digits}d}.JPG"
            image, _ = order.draw(category, "normal", i, size, None)
            rows.append(("train" if i < order.train_normal else "test", "normal", path, ""))
            yield path, encode_image(image, ".jpg")
        for i in range(order.test_anomalous):
            path = f"{category}/Data/Images/Anomaly/{i:03d}.JPG"
            truth = f"{category}/Data/Masks/Anomaly/{i:03d}.png"
            image, mask = order.draw(category, "bad", i, size, defect_of(i))
            rows.append(("test", "anomaly", path, truth))
            yield path, encode_image(image, ".jpg")
            yield truth, encode_image(mask.astype(np.uint8) * np.uint8(1 + i % 9), ".png")
        labels = [(path, label, truth) for _, label, path, truth in rows]
        yield f"{category}/image_anno.csv", write_table(("image", "label", "mask"), labels)
        splits += [(category, *row) for row in rows]
    header = ("object", "split", "label", "image", "mask")
    yield "split_csv/1cls.csv", write_table(header, splits)


def write_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> bytes:
    """CSV with "\\n" line ends."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()


def lay_out_btad(order: Order) -> Iterator[Member]:
    """BTAD: ok and ko; bmp, png and bmp images; png, png and three-channel bmp masks."""
    formats = {"01": (".bmp", ".png"), "02": (".png", ".png"), "03": (".bmp", ".bmp")}
    sizes = {"01": (176, 176), "02": (152, 152), "03": (144, 192)}
    for category in order.categories:
        top, size = f"BTech_Dataset_transformed/{category}", sizes[category]
        image_suffix, mask_suffix = formats[category]
        for split, amount in (("train", order.train_normal), ("test", order.test_normal)):
            for i in range(amount):
                image, _ = order.draw(category, split, i, size, None)
                yield f"{top}/{split}/ok/{i:04d}{image_suffix}", encode_image(image, image_suffix)
        for i in range(order.test_anomalous):
            image, mask = order.draw(category, "bad", i, size, defect_of(i))
            truth = black_white(mask)
            if mask_suffix == ".bmp":
                truth = np.repeat(truth[..., None], 3, axis=-1)  # (H, W) -> (H, W, 3)
            yield f"{top}/test/ko/{i:04d}{image_suffix}", encode_image(image, image_suffix)
            yield f"{top}/ground_truth/ko/{i:04d}{mask_suffix}", encode_image(truth, mask_suffix)


def lay_out_dagm(order: Order) -> Iterator[Member]:
    """DAGM: two halves with a label list, .PNG, gray, coarse ellipses in place of exact masks."""
    size = (160, 160)
    for category in order.categories:
        halves = (  # the training half has anomalous images too
            ("Train", order.train_normal, max(1, order.train_normal // 4)),
            ("Test", order.test_normal, order.test_anomalous),
        )
        for half, normal, anomalous in halves:
            flags = np.arange(normal + anomalous) < anomalous
            stream = [order.seed, zlib.crc32(f"{category}/{half}".encode())]
            np.random.default_rng(stream).shuffle(flags)  # defective images lie in between
            lines = ["1"]
            for i, flag in enumerate(flags.tolist()):
                image, mask = order.draw(category, half, i, size, defect_of(i) if flag else None)
                name, label = f"{i + 1:04d}.PNG", f"{i + 1:04d}_label.PNG"
                yield f"{category}/{half}/{name}", encode_image(to_gray(image), ".png")
                if flag:
                    truth = encode_image(black_white(cover_with_ellipse(mask)), ".png")
                    yield f"{category}/{half}/Label/{label}", truth
                last = label if flag else "0"
                lines.append(f"{i + 1}\t{int(flag)}\t{name}\t0\t{last}")
            yield f"{category}/{half}/Label/Labels.txt", "\n".join([*lines, ""]).encode()


def cover_with_ellipse(mask: Mask) -> Mask:
    """Filled ellipse (H, W) along a defect's main axes that covers all of it."""
    points = np.argwhere(mask).astype(float)  # (defect pixels, 2)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    _, axes = np.linalg.eigh(np.cov(points.T) if len(points) > 1 else np.eye(2))
    radii = np.abs((points - centre) @ axes).max(axis=0) + 3
    grid = np.moveaxis(np.indices(mask.shape), 0, -1)  # (H, W, 2)
    reach = (((grid - centre) @ axes / radii) ** 2).sum(axis=-1)  # (H, W), 1 on the ellipse
    inside: Mask = reach <= max(1.0, float(reach[mask].max()))
    return inside


def lay_out_sdd(order: Order) -> Iterator[Member]:
    """KolektorSDD: tall gray pictures with label bmps of 0/1 or 0/255, eight parts an item.

    Each third is drawn for itself, so that it is known which thirds have a defect. The protocol
    draws a quarter of the normal thirds for the test; their number follows from `test_normal`, and
    with it the number of training images.
    """
    normal = count_normal_thirds(order.test_normal, order.test_anomalous)
    flags = np.arange(normal + order.test_anomalous) < order.test_anomalous
    np.random.default_rng([order.seed, zlib.crc32(b"thirds")]).shuffle(flags)
    (category,) = order.categories
    for number in range(len(flags) // 3):
        height = 3 * 136 + number * 7 % 31  # pictures differ in height; most do not divide by 3
        cuts = (0, height // 3, height * 2 // 3, height)
        thirds = []
        for index, (top, bottom) in enumerate(pairwise(cuts), start=3 * number):
            defect = defect_of(index) if flags[index] else None
            thirds.append(order.draw(category, "third", index, (bottom - top, 160), defect))
        image = to_gray(np.concatenate([image for image, _ in thirds]))  # (H, W)
        mask = np.concatenate([mask for _, mask in thirds]).astype(np.uint8)
        item = 1 + number // 8
        stem = f"kos{item:02d}/Part{number % 8}"
        yield f"{stem}.jpg", encode_image(image, ".jpg")
        yield f"{stem}_label.bmp", encode_image(mask * np.uint8(255 if item % 2 else 1), ".bmp")


def count_normal_thirds(test_normal: int, test_anomalous: int) -> int:
    """Normal thirds of which the protocol tests a quarter, rounded up, in whole pictures."""
    return next(
        n for n in range(4 * test_normal - 3, 4 * test_normal + 1) if (n + test_anomalous) % 3 == 0
    )


LAYOUTS: dict[str, Callable[[Order], Iterator[Member]]] = {
    "mvtec": lay_out_mvtec,
    "visa": lay_out_visa,
    "btad": lay_out_btad,
    "mpdd": lay_out_mpdd,
    "dagm": lay_out_dagm,
    "sdd": lay_out_sdd,
    "dtd": lay_out_dtd,
}


def sample_categories(dataset: str) -> tuple[str, ...]:
    """Raw names of the categories that the sample draws of a dataset."""
    recipes = [recipe.split("/", 1) for recipe in EVALUATION]
    return tuple(category for owner, category in recipes if owner == dataset)


def write_sample_archives(
    dataset: str,
    out_dir: Path,
    *,
    seed: int,
    train_normal: int,
    test_normal: int,
    test_anomalous: int,
) -> dict[str, str]:
    """Draw one dataset's sample and pack it as its official archives.

    Args:
        dataset: id.
        out_dir: folder of the archives.
        seed: fixes every byte, with the same versions of the image and compression libraries, on
            one kind of CPU.
        train_normal: normal training images per category. KolektorSDD's protocol fixes their share
            instead; DAGM's training half gets some defective images besides.
        test_normal: the same for the test.
        test_anomalous: anomalous test images per category.

    Returns:
        Archive file name -> SHA-256, as `fetch_dataset` takes it.

    Raises:
        DatasetError: no dataset has this id.
        ValueError: a number is too small to make a test set.
    """
    spec = get_dataset(dataset)
    if min(test_normal, test_anomalous) < 1 or train_normal < 0:
        raise ValueError(
            "a sample needs test_normal >= 1, test_anomalous >= 1 and train_normal >= 0"
        )
    categories = sample_categories(dataset)
    checksums = {}
    for archive in spec.list_archives(spec.default_protocol, categories):
        held = (archive.category,) if archive.category else categories
        order = Order(dataset, held, seed, train_normal, test_normal, test_anomalous)
        path = out_dir / archive.filename
        write_archive(path, LAYOUTS[dataset](order))
        checksums[archive.filename] = compute_sha256(path)
    return checksums
