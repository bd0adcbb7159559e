"""Answers to requests: images in; scores, decisions and maps out.

Knows no server; `fuzzyclip.deploy.pyfunc` puts one around it. Every row of a request stands for
itself: one that can not be answered says why, and no row's numbers depend on the others.

Shapes: H rows, W columns of an image as it was sent.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from fuzzyclip.deploy.request import (
    INPUTS,
    PREFIX,
    ROOT,
    Limits,
    Options,
    RequestError,
    Row,
    read_category,
    read_content,
)
from fuzzyclip.deploy.turns import BusyError, Turns
from fuzzyclip.model.choices import offer_threshold
from fuzzyclip.model.inference import Opener
from fuzzyclip.model.loaded import FuzzyCLIP
from fuzzyclip.model.prediction import Prediction
from fuzzyclip.model.tiles import plan_tiles
from fuzzyclip.report.heatmaps import encode_map_png, encode_mask_png

#: What a row of the answer says.
OUTPUTS = (
    "category", "image_score", "probability", "label", "decision", "threshold", "threshold_method",
    "map_max", "defect_share", "width", "height", "map", "mask", "error",
)  # fmt: skip


class Responder:
    """A model that answers requests; one may be shared by threads.

    One image is opened and worked on at a time, whoever asks: memory is that of the largest image,
    of the answers and of the requests that wait, and the cores are busy all the same. How many
    wait and how long is limited, so that what nobody listens to any more is not worked on.
    """

    def __init__(
        self, detector: FuzzyCLIP, limits: Limits | None = None, image_root: Path | None = None
    ) -> None:
        """Put a model to work; without `image_root` no image may be asked for by path.

        Raises:
            OSError: the folder is missing.
        """
        self.detector, self.limits = detector, limits or Limits()
        self.image_root = image_root.resolve(strict=True) if image_root else None
        self._turns = Turns(self.limits.waiting)

    @classmethod
    def start(cls, source: str | Path, environment: Mapping[str, str] = os.environ) -> Self:
        """Load a model as the environment says.

        Besides the limits: FUZZYCLIP_IMAGE_ROOT, FUZZYCLIP_DEVICE (`auto`), FUZZYCLIP_WEIGHTS, the
        frozen CLIP's weights where the model does not hold them, FUZZYCLIP_VERIFY_KEY, the public
        key whose owner must have signed the model, and FUZZYCLIP_SIGNATURE, where that lies.

        Raises:
            ModelError: the model is missing, broken, or not as it was signed.
        """
        limits = Limits.read(environment)
        root, weights, key, signature = (
            Path(path) if (path := environment.get(name)) else None
            for name in (ROOT, f"{PREFIX}WEIGHTS", f"{PREFIX}VERIFY_KEY", f"{PREFIX}SIGNATURE")
        )
        device = environment.get(f"{PREFIX}DEVICE") or "auto"
        detector = FuzzyCLIP.load(
            source, device=device, weights=weights, verify_key=key, signature=signature
        )
        return cls(detector, limits, root)

    def answer(self, rows: Sequence[Row], options: Options) -> list[dict[str, Any]]:
        """An answer to each row, with the keys `OUTPUTS`; what is not known is None.

        A row has `image`, the base64 of an image's file, or `path`; and `category`, what it shows:
        one that is calibrated, where some are and no threshold is given.

        Raises:
            RequestError: no rows, or too many.
            BusyError: too many requests wait, or the turn of none of its rows has come in time.
        """
        if not rows:
            raise RequestError(f"no images: send rows with {', '.join(INPUTS)}")
        if len(rows) > self.limits.images:
            raise RequestError(
                f"{len(rows)} images, the limit of a request is {self.limits.images}"
            )
        with self._turns.enter():
            return self._answer(rows, options)

    def _answer(self, rows: Sequence[Row], options: Options) -> list[dict[str, Any]]:
        """The answers of a request that was let in."""
        until = self._turns.now() + self.limits.seconds
        answers: list[dict[str, Any]] = []
        pixels = 0
        for row in rows:
            answer: dict[str, Any] = dict.fromkeys(OUTPUTS)
            try:
                category = read_category(row)
                content = read_content(row, self.limits.bytes, self.image_root)
                if pixels >= self.limits.request_pixels:
                    raise ValueError(
                        f"the images before this one reach the {self.limits.request_pixels:,} "
                        "pixels of a request; send the others apart"
                    )
                with self._turns.take(until):
                    answer |= self._detect(content, category, options)
                pixels += answer["width"] * answer["height"]
            except BusyError as error:
                if not pixels:  # nothing is lost where the whole is sent again
                    raise
                answer["error"] = str(error)
            except (ValueError, OSError) as error:
                answer["error"] = str(error)
            answers.append(answer)
        return answers

    def _detect(self, content: bytes, named: str | None, options: Options) -> dict[str, Any]:
        """The answer to one row; a ValueError says what of it is refused."""
        opener = Opener(self.limits.pixels, options.white)
        try:
            image = opener(content).picture
        except OSError as error:
            raise ValueError(str(error).removeprefix("bytes: ")) from error
        with offer_threshold():
            category = self.detector.choose_category(named, required=options.threshold is None)
        tiling = options.choose_tiling(self.detector.card.calibrations.get(category))
        if tiling is not None:
            count = len(plan_tiles(*image.size, tiling.side, tiling.overlap))
            if count > self.limits.tiles:
                raise ValueError(f"tile: {count} of them, the limit is {self.limits.tiles}")
        prediction = self.detector(
            image, category, tiling=tiling, threshold=options.threshold, score=options.score,
            opener=opener,
        )  # fmt: skip
        row = {key: value for key, value in prediction.to_row().items() if key in OUTPUTS}
        return row | {"error": None} | _encode_pictures(prediction, options)


def _encode_pictures(prediction: Prediction, options: Options) -> dict[str, str]:
    """Map and mask (H, W) as base64 of PNG files, as far as they are asked for."""
    pictures = {}
    if options.map == "png16":
        pictures["map"] = encode_map_png(prediction.anomaly_map)
    if options.mask:
        pictures["mask"] = encode_mask_png(prediction.mask)
    return {name: base64.b64encode(content).decode("ascii") for name, content in pictures.items()}
