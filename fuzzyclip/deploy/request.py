"""Requests: all that they may say, and limits of what a server takes.

Requests come from anyone: every text is checked before it is used, paths lead nowhere but below one
folder, and no error names a place of the server.
"""

import binascii
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fuzzyclip.images.decode import open_image_file
from fuzzyclip.model.card import Calibration, Tiling
from fuzzyclip.model.score_kinds import ScoreKind
from fuzzyclip.model.tiles import SMALLEST_SIDE
from fuzzyclip.utils.ranges import COUNT_OR_ZERO
from fuzzyclip.utils.settings import Number, Record, limit, say_first_fault

#: What a row of a request may say.
INPUTS = ("image", "path", "category")
#: Begins the variables of the environment that set up a server.
PREFIX = "FUZZYCLIP_"
#: Names the folder of images that may be asked for by path.
ROOT = f"{PREFIX}IMAGE_ROOT"
#: Characters of a category; a prompt has room for no more than 77 tokens anyway.
LONGEST_CATEGORY = 100
DATA_ADDRESS = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

Positive = Annotated[int, Field(ge=1, le=2**62)]
NonNegative = Annotated[int, limit(COUNT_OR_ZERO)]
#: A row of a request; None stands for what is missing.
Row = Mapping[Any, Any]


class RequestError(ValueError):
    """A request as a whole can not be answered."""


class Limits(BaseModel):
    """Limits of what a server takes.

    Attributes:
        images: rows of a request.
        bytes: of one image's file.
        pixels: of one image. A map takes about 20 bytes a pixel until it is sent.
        request_pixels: of a request's images; the one that reaches it is the last to be answered.
        tiles: of one image, where it is looked at by tiles.
        seconds: of a request, until the last of its images is begun; waiting for others' counts.
        waiting: requests that wait while another one is answered; a further one is sent away.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: f"{PREFIX}MAX_{name.upper()}",
        populate_by_name=True,
    )

    images: Positive = 64
    bytes: Positive = 64 * 2**20
    pixels: Positive = 50_000_000
    request_pixels: Positive = 200_000_000
    tiles: Positive = 256
    seconds: Positive = 45
    waiting: NonNegative = 32

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Limits as FUZZYCLIP_MAX_IMAGES, FUZZYCLIP_MAX_BYTES and so on set them.

        Raises:
            ValueError: not a whole number from 1 on; names the variable.
        """
        variables = [str(field.alias) for field in cls.model_fields.values()]
        given = {name: environment[name] for name in variables if environment.get(name)}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(say_first_fault(error)) from error


class Options(Record):
    """Wishes of a request, the same for all of its rows.

    Attributes:
        map: `png16`, a gray PNG of 16 bits with 65535 for 1; or `none`.
        mask: whether a mask comes along, a gray PNG with 255 where the map reaches its threshold.
        threshold: of image scores, in place of the calibrated one.
        tile: side of overlapping tiles in pixels, 0 for the whole image; None for the way in which
            the category was calibrated, the whole image where it was not.
        overlap: pixels that tiles share, up to half a side; None for a quarter.
        score: what decides an image, see `fuzzyclip.model.score_kinds`; None for what the category
            was calibrated for, `class` where it was not.
        white: value shown as white in gray images of more than 8 bits; see
            `fuzzyclip.images.decode`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    map: Literal["png16", "none"] = "png16"
    mask: bool = False
    threshold: Number | None = None
    tile: NonNegative | None = None
    overlap: NonNegative | None = None
    score: ScoreKind | None = None
    white: Annotated[int, Field(ge=1, le=2**32)] | None = None

    @model_validator(mode="after")
    def _check_tiling(self) -> Self:
        if self.tile and self.tile < SMALLEST_SIDE:
            raise ValueError(f"tile: {self.tile} pixels; give 0 or at least {SMALLEST_SIDE}")
        if self.overlap is not None and not self.tile:
            raise ValueError("overlap: give a tile as well")
        if self.overlap is not None and self.tile and self.overlap > self.tile // 2:
            raise ValueError(f"overlap: {self.overlap} pixels; give at most half of the tile")
        return self

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Options from what came with a request.

        Raises:
            RequestError: says which is wrong.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            raise RequestError(f"params.{say_first_fault(error)}") from error

    def choose_tiling(self, own: Calibration | None) -> Tiling | None:
        """The tiling for images of a category with this calibration; None for whole images."""
        if self.tile is None:
            return own.tiling if own else None
        if not self.tile:
            return None
        overlap = self.tile // 4 if self.overlap is None else self.overlap
        return Tiling(side=self.tile, overlap=overlap)


def read_category(row: Row) -> str | None:
    """The category of a row's image: what it shows; None where it is not said.

    Raises:
        ValueError: too long, or with characters that are none of a name.
    """
    category = _read_text(row, "category")
    if category is None:
        return None
    if len(category) > LONGEST_CATEGORY or not category.isprintable():
        raise ValueError(
            f"category: a name of at most {LONGEST_CATEGORY} characters in one line, as it is to "
            "stand in the prompts"
        )
    return category


def read_content(row: Row, limit: int, root: Path | None) -> bytes:
    """The image file that a row sends or names.

    Args:
        limit: bytes of the file at most.
        root: folder of images that may be asked for by path, resolved; None allows no path.

    Raises:
        ValueError: neither or both, not base64, too long, or a path that is refused.
    """
    image, path = _read_text(row, "image"), _read_text(row, "path")
    if image is not None and path is None:
        return _decode(image, limit)
    if path is not None and image is None:
        return _read_file(path, limit, root)
    given = "neither" if image is None else "both"
    raise ValueError(f"{given} image and path; give one (a row has {', '.join(INPUTS)})")


def _decode(text: str, limit: int) -> bytes:
    """Content of an image file from its base64, bare or in a data address."""
    address = DATA_ADDRESS.match(text)
    if address is None and text[:5].lower() == "data:":
        raise ValueError("image: a data address begins with data:image/...;base64,")
    begin = address.end() if address else 0
    if len(text) - begin > math.ceil(limit / 3) * 4:
        raise ValueError(f"image: its file has more than the {limit:,} bytes that are allowed")
    try:
        if (len(text) - begin) % 4:  # Python takes padding in excess
            raise ValueError
        return binascii.a2b_base64(text[begin:], strict_mode=True)
    except ValueError as error:
        raise ValueError("image: no base64 of an image file, in one line without spaces") from error


def _read_file(path: str, limit: int, root: Path | None) -> bytes:
    """Content of an image file below the root, links followed.

    What is not there and what is not to be seen get the same words, so that nobody can feel their
    way through the server's folders.
    """
    if root is None:
        raise ValueError(f"path: this server reads no files ({ROOT} is not set); send the image")
    if ADDRESS.match(path):
        raise ValueError("path: an address; nothing is fetched from elsewhere")
    try:
        place = (root / path).resolve(strict=True)
        if ".." in Path(path).parts or not place.is_relative_to(root):
            raise PermissionError
        with open_image_file(place) as stream:
            content = stream.read(limit + 1)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError("path: no such file below the server's folder of images") from error
    if len(content) > limit:
        raise ValueError(f"path: the file has more than the {limit:,} bytes that are allowed")
    return content


def _read_text(row: Row, key: str) -> str | None:
    """A row's text, None where it is missing."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: must be text, not {type(value).__name__}")
    return value
