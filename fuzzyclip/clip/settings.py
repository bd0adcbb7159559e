"""Settings of the frozen CLIP, and of the prompts that it is given."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fuzzyclip.utils.schemas import Few, Number, Positive, Record, Side, check_ascending

#: One number a colour channel.
Channels = tuple[Number, Number, Number]
Deviations = tuple[Positive, Positive, Positive]


class BackboneSettings(Record):
    """All that decides a frozen CLIP's outputs; `fuzzyclip.clip.backbone` builds it.

    Attributes:
        model: open_clip's model name, or the path of a JSON configuration.
        weights: a file, an open_clip tag, or `random` (see `fuzzyclip.clip.weights`).
        sha256: expected digest of the weights' file; OpenAI's need none, for theirs are published.
        image_size: side of the square input in pixels, S; images are squashed to it.
        blocks: blocks of the image tower whose patch tokens are taken, counted from 1 as in the
            paper, ascending.
        activation: `model` (what the configuration says), `gelu` or `quickgelu`. Weights trained
            with QuickGELU also run with GELU, and APRIL-GAN's numbers were made that way.
        position_embedding: how the grid of position embeddings is resized.
        mean: input mean of the three channels; None takes the weights' own, see
            `fuzzyclip.clip.model_configs.read_channels`.
        std: input standard deviation of the three channels; None takes the weights' own.
        precision: type in which the towers compute; other than float32 by autocast.
    """

    model: str
    weights: str
    sha256: str | None = None
    image_size: Side
    blocks: Annotated[tuple[Few, ...], AfterValidator(check_ascending)]
    activation: Literal["model", "gelu", "quickgelu"] = "model"
    position_embedding: Literal["bicubic", "bilinear"] = "bicubic"
    mean: Channels | None = None
    std: Deviations | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class TextSettings(Record):
    """How names become prompts; see `fuzzyclip.clip.prompts`.

    Attributes:
        ensemble: `full`: the mean of 35 templates, as in the baselines' code; `single`: "a photo
            of a ..." alone.
        separator: between stacked names; the paper shows bare juxtaposition.
        underscore: `keep` leaves metal_nut as it is, `space` makes "metal nut" of it.
    """

    ensemble: Literal["full", "single"] = "full"
    separator: Annotated[str, Field(max_length=500)] = " "
    underscore: Literal["keep", "space"] = "keep"
