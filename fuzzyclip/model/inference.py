"""From images, as the user gives them, to anomaly maps and scores of a category's model.

Shapes: H rows, W columns of an image, B images of a batch, S image size.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Generic,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
)

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import preprocess
from fuzzyclip.features.kinds import TOKENS, FeatureKind
from fuzzyclip.images.decode import (
    MAX_PIXELS,
    TURNS,
    check_inspectable,
    check_size,
    decode_image,
    read_image_file,
)
from fuzzyclip.method import Scale
from fuzzyclip.method.scorer import NotFiniteError, Scorer, score_batch
from fuzzyclip.model.score_kinds import DEFAULT, ScoreKind, check_kind, judge
from fuzzyclip.utils.files import show_name
from fuzzyclip.utils.prefetch import prefetch
from fuzzyclip.utils.ranges import SIGMA

T = TypeVar("T")

#: A file by its path, its bytes, a file open in binary mode, a PIL image, or an array (H, W, 3) or
#: (H, W) of uint8.
ImageLike: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Image.Image
    | NDArray[np.uint8]
)
OneOrMore: TypeAlias = ImageLike | Sequence[ImageLike]

#: What a PNG holds with its transparency; TIFF holds the others.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class Opened(NamedTuple):
    """An image as it was opened, RGB; and its file's digest, empty where it came as pixels."""

    picture: Image.Image
    sha256: str = ""


@dataclass(frozen=True)
class Opener:
    """Opens images for inspection; a file is read once.

    Attributes:
        max_pixels: larger ones are refused before they are decoded, or converted.
        white: value shown as white in images of more than 8 bits; None for their type's largest.
    """

    max_pixels: int = MAX_PIXELS
    white: int | None = None

    def __call__(self, image: ImageLike) -> Opened:
        """The picture, and the digest of its file.

        Raises:
            OSError: it can not be read, or is too large or too small to be inspected.
            ValueError: an array of another type or shape.
        """
        name, sha256 = name_image(image), ""
        if isinstance(image, np.ndarray):
            picture = _from_array(image, self.max_pixels)
        elif isinstance(image, Image.Image):
            check_size(*image.size, self.max_pixels, name)
            picture = self._from_picture(image, name)
        else:
            content = _read(image)
            picture, sha256 = self._decode(content, name), hashlib.sha256(content).hexdigest()
        check_inspectable(picture, name)
        return Opened(picture, sha256)

    def _from_picture(self, image: Image.Image, name: str) -> Image.Image:
        """What its file would give: upright as its EXIF orientation says, transparency on white."""
        try:
            _load(image)
        except (OSError, ValueError) as error:  # a file that is broken, or closed
            raise OSError(f"{name}: not a readable image ({error})") from error
        plain = image.mode == "RGB" and "transparency" not in image.info
        picture = image if plain else self._decode(_encode(image), name)
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        return picture if turn is None else picture.transpose(turn)

    def _decode(self, content: bytes, name: str) -> Image.Image:
        return decode_image(content, name, white=self.white, max_pixels=self.max_pixels)


def digest_image(image: ImageLike) -> str:
    """SHA-256 of what an image holds, its file's where it has one; empty where it can not be read.

    Raises:
        ValueError: it is none of `ImageLike`.
    """
    try:
        if isinstance(image, np.ndarray):
            content = repr(image.shape).encode() + image.tobytes()
        elif isinstance(image, Image.Image):
            facts = f"{image.mode} {image.size} {image.getpalette()}"
            content = facts.encode() + image.tobytes()
        else:
            content = _read(image)
        return hashlib.sha256(content).hexdigest()
    except OSError:
        return ""


def is_image(images: object) -> TypeGuard[ImageLike]:
    """True for what can only be meant as one image, though it may be none that is taken."""
    single = isinstance(
        images,
        str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor,
    )
    return single or hasattr(images, "read") or not isinstance(images, Iterable)


def list_given(images: OneOrMore) -> Sequence[ImageLike]:
    """Images as they were given, a single one among them as one; a generator is gone through."""
    return tuple(cast(Sequence[ImageLike], (images,) if is_image(images) else images))


def _read(image: Any) -> bytes:
    """Content of the file that an image is given as; an open one is left where it stood.

    Raises:
        OSError: it can not be read.
        ValueError: it is none of `ImageLike`; says what to give instead.
    """
    if isinstance(image, str | os.PathLike):
        return read_image_file(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "read"):
        seekable = getattr(image, "seekable", None)
        start = image.tell() if seekable is not None and seekable() else None
        content = image.read()
        if start is not None:
            image.seek(start)
        if isinstance(content, bytes):
            return content
        raise ValueError("a file that was opened as text: open it with mode 'rb'")
    if isinstance(image, Tensor):
        raise ValueError(
            "a tensor does not say what its numbers mean: give uint8 pixels as an array, of "
            "(3, H, W) in [0, 1] (tensor * 255).byte().permute(1, 2, 0).numpy()"
        )
    raise ValueError(
        f"{type(image).__name__} is no image: give a path, bytes, an open file, a PIL image or an "
        "array of uint8"
    )


def _load(image: Image.Image) -> None:
    """Decode the picture; of TIFF, Pillow turns it upright here.

    Where it maps the file into memory instead of reading it, it takes width for height in a picture
    that lies on its side (Pillow 13.0): so it is not told the file's name, without which it reads.
    """
    name = getattr(image, "filename", None)
    try:
        if name and image.format == "TIFF":
            image.filename = ""  # type: ignore[attr-defined]  # of files only
        image.load()
    finally:
        if name:
            image.filename = name  # type: ignore[attr-defined]


def _from_array(image: NDArray[np.uint8], max_pixels: int) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"an array of {image.dtype} and shape {image.shape} is no image: give uint8, (H, W, 3) "
            "in the order red, green, blue, or (H, W)"
        )
    height, width = image.shape[:2]
    check_size(width, height, max_pixels, "array")
    return Image.fromarray(image).convert("RGB")


def _encode(image: Image.Image) -> bytes:
    """A PIL image as a file, so that all kinds of pixels are read in one way."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if image.mode in PNG_MODES else "TIFF")
    return buffer.getvalue()


def name_image(image: ImageLike) -> str:
    """The name of an image in messages and results, as text that can be written anywhere."""
    if isinstance(image, str | os.PathLike):
        return show_name(os.fspath(image))
    if isinstance(image, bytes | bytearray | memoryview | io.BytesIO):
        return "bytes"
    if isinstance(image, np.ndarray):
        return "array"
    name = getattr(image, "filename" if isinstance(image, Image.Image) else "name", "")
    return show_name(name) if isinstance(name, str) and name else "image"


class ImageModel(Protocol):
    """What judges images: a frozen CLIP, and from its pixels to maps and scores."""

    @property
    def backbone(self) -> Backbone:
        """The frozen CLIP."""

    def __call__(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (B, S, S) and scores (B,) of pixels (B, 3, S, S), as `CategoryModel` gives them."""


@dataclass(frozen=True)
class CategoryModel:
    """A frozen CLIP and one way to score what it gives.

    Attributes:
        scorer: from patch tokens and class features to maps and scores.
        sigma: Gaussian smoothing of the maps in pixels.
        score: what decides an image, see `fuzzyclip.model.score_kinds`.
        kind: what is read of an image.

    Raises:
        ValueError: sigma is out of range, there is no such kind of score, or the scorer has no
            log-odds to make one of.
    """

    backbone: Backbone
    scorer: Scorer
    sigma: float = 0.0
    score: ScoreKind = DEFAULT
    kind: FeatureKind = TOKENS

    def __post_init__(self) -> None:
        SIGMA.check("a detector", sigma=self.sigma)
        if check_kind(self.score) == "class":
            return
        if self.scorer.scale is not Scale.LOG_ODDS or self.scorer.join is not None:
            raise ValueError(
                f"score: {self.score!r} takes a map of log-odds and a score without one; give "
                f"{DEFAULT!r}"
            )

    @property
    def judging(self) -> Scorer:
        """The scorer, where `score` decides an image.

        The map counts as it is after smoothing, (S, S), in float64, before it is resized.
        """
        if self.score == "class":
            return self.scorer

        def join(scores: NDArray[np.float32], peaks: NDArray[np.floating]) -> NDArray[np.float32]:
            return judge(self.score, scores, peaks).astype(np.float32)

        return replace(self.scorer, join=join)

    def __call__(self, pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Maps (B, S, S) and scores (B,), higher is more anomalous, of pixels (B, 3, S, S).

        Scores are log-odds and maps probabilities, where the scorer's are.

        Raises:
            NotFiniteError: the scorer has no finite answer to an image.
        """
        image_embed, patch_tokens = self.kind.encode(self.backbone, pixels)
        scores = score_batch(self.judging, patch_tokens, image_embed, self.backbone, self.sigma)
        return scores.shown, scores.image_scores


@dataclass(frozen=True)
class Finding(Generic[T]):
    """Map (S, S) and score of one image, as it was given; or why it can not be read.

    Attributes:
        size: width and height in pixels; None, as score and map, where it can not be read.
        error: why the image can not be read; empty where it can.
        sha256: of the image's file; empty where it is none or can not be read.
        picture: the image as it was opened, where it was to be kept.
    """

    item: T
    size: tuple[int, int] | None = None
    score: float | None = None
    map: NDArray[np.float32] | None = None
    error: str = ""
    sha256: str = ""
    picture: Image.Image | None = None

    @classmethod
    def begin(cls, item: T, opened: Opened, keep_picture: bool) -> Self:
        """An image that is open, before the model has seen it."""
        picture = opened.picture if keep_picture else None
        return cls(item, opened.picture.size, sha256=opened.sha256, picture=picture)


#: What was found in a file, by its path as it was given.
Detection = Finding[str]


def read_file(path: str) -> bytes:
    """Content of a local image file.

    Raises:
        OSError: it is missing, unreadable or no regular file.
    """
    return read_image_file(Path(path))


def detect_files(
    paths: Sequence[str | Path],
    category_model: CategoryModel,
    *,
    batch_size: int,
    workers: int = 1,
    read: Callable[[str], bytes] = read_file,
) -> Iterator[Detection]:
    """`detect_images` over image files.

    Args:
        read: path to content, called in threads; raises OSError.
    """
    return detect_images(
        [str(path) for path in paths],
        lambda name: Opened(decode_image(read(name), name)),
        category_model,
        batch_size=batch_size,
        workers=workers,
    )


def detect_images(
    items: Iterable[T],
    open_image: Callable[[T], Opened],
    category_model: ImageModel,
    *,
    batch_size: int,
    workers: int = 1,
    keep_pictures: bool = False,
) -> Iterator[Finding[T]]:
    """Maps and scores of images, in their order; the next batch is decoded while one is computed.

    An image that can not be read, or that the model has no finite answer to, is told by its
    finding, and the others go on. A blank one takes its place in the batch, so that the others'
    numbers do not depend on it.

    Args:
        open_image: item to what it shows, called in threads; raises OSError.
        batch_size: images a pass. The same images in the same batches give the same bytes; other
            batches may change the last digits.
        workers: threads that read and decode.
        keep_pictures: whether findings have the picture; two batches of them are then held.

    Raises:
        NotFiniteError: the model has no finite answer to a blank image either.
    """
    size = category_model.backbone.image_size

    def load(item: T) -> tuple[Tensor, Finding[T]]:
        try:
            opened = open_image(item)
        except OSError as error:
            return torch.zeros(3, size, size), Finding(item, error=str(error))
        begun = Finding.begin(item, opened, keep_pictures)
        return preprocess(opened.picture, category_model.backbone), begun

    loaded = prefetch(load, items, ahead=batch_size, workers=workers)
    while batch := list(islice(loaded, batch_size)):
        pixels, given = torch.stack([image for image, _ in batch]), [begun for _, begun in batch]
        try:
            maps, scores = category_model(pixels)
        except NotFiniteError as error:
            for row in error.rows:
                pixels[row] = 0
                given[row] = Finding(given[row].item, error=given[row].error or str(error))
            maps, scores = category_model(pixels)
        for finding, anomaly_map, score in zip(given, maps, scores, strict=True):
            if finding.error:
                yield finding
            else:
                yield replace(finding, score=float(score), map=anomaly_map)
