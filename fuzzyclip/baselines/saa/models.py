"""The frozen models of SAA+ at work: GroundingDINO finds boxes, SAM refines them, a ResNet sees.

The ResNet is read by `saa_parts`, for saliency.

Shapes: n boxes, S image size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyclip.baselines.saa.parts import Boxes

#: Captions that GroundingDINO looks for at a time.
CAPTIONS = 4
#: Boxes that SAM refines at a time, 64 MB of mask logits at 1024 pixels.
CHUNK = 16


@dataclass(frozen=True)
class BoxDetector:
    """GroundingDINO and its processor."""

    model: Any
    processor: Any

    def respell(self, name: str) -> str:
        """A name as it stands in phrases: cut into the tokenizer's pieces and joined again."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(name.lower(), add_special_tokens=False)["input_ids"]
        return str(tokenizer.decode(ids))

    @torch.no_grad()
    def find(
        self,
        image: Tensor,
        captions: Sequence[str],
        box_threshold: float,
        text_threshold: float,
    ) -> list[Boxes]:
        """Boxes of what each caption names.

        Args:
            image: (3, S, S), 0 to 1.
            captions: phrases that end in full stops; one is added at the end where there is none.
            box_threshold: a box stays if its best token is above.
            text_threshold: tokens above make up its phrase.

        Raises:
            ValueError: a caption is longer than the model reads; it would be cut silently.
        """
        resized = self.processor.image_processor(
            images=image.cpu(), do_rescale=False, return_tensors="pt"
        ).to(image.device)
        found = []
        for first in range(0, len(captions), CAPTIONS):
            words = self._read(captions[first : first + CAPTIONS]).to(image.device)
            count = len(words["input_ids"])
            pixels = {name: part.expand(count, *part.shape[1:]) for name, part in resized.items()}
            found += self.processor.post_process_grounded_object_detection(
                self.model(**pixels, **words),
                words["input_ids"],
                threshold=box_threshold,
                text_threshold=text_threshold,
            )
        return [Boxes(part["boxes"], part["scores"], part["text_labels"]) for part in found]

    def _read(self, captions: Sequence[str]) -> Any:
        """Tokens of captions, padded to the longest; see `find`."""
        texts = [caption.lower().strip() for caption in captions]
        words = self.processor.tokenizer(
            [text if text.endswith(".") else text + "." for text in texts],
            padding=True,
            return_tensors="pt",
        )
        lengths, most = words["attention_mask"].sum(dim=1).tolist(), self.model.config.max_text_len
        for caption, length in zip(captions, lengths, strict=True):
            if length > most:
                raise ValueError(f"caption of {length} tokens does not fit {most}: {caption!r}")
        return words


@dataclass(frozen=True)
class Encoded:
    """An image as SAM sees it.

    Attributes:
        embedding: of the whole image.
        image_size: its height and width.
        input_size: those it was resized to, before padding.
    """

    embedding: Tensor
    image_size: tuple[int, int]
    input_size: tuple[int, int]


@dataclass(frozen=True)
class Segmenter:
    """SAM and its processor."""

    model: Any
    processor: Any

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """An image, (3, S, S) from 0 to 1, for any number of boxes."""
        inputs = self.processor(images=image.cpu(), do_rescale=False, return_tensors="pt")
        sizes = (inputs[name][0].tolist() for name in ("original_sizes", "reshaped_input_sizes"))
        pixels = inputs["pixel_values"].to(image.device)
        return Encoded(self.model.get_image_embeddings(pixels), *map(tuple, sizes))

    @torch.no_grad()
    def refine(self, encoded: Encoded, places: Tensor) -> Iterator[Tensor]:
        """Masks of what stands in boxes, bool, (up to `CHUNK`, S, S) at a time.

        Args:
            encoded: the image.
            places: (n, 4), see `Boxes`.
        """
        height, width = encoded.input_size
        boxes = places * places.new_tensor([width, height, width, height])
        for part in torch.split(boxes, CHUNK):
            logits = self.model(
                image_embeddings=encoded.embedding, input_boxes=part[None], multimask_output=False
            ).pred_masks[0]  # (n, 1, side / 4, side / 4)
            masks = self.processor.post_process_masks(
                [logits], [encoded.image_size], [encoded.input_size]
            )[0]
            yield masks[:, 0]


@dataclass(frozen=True)
class Models:
    """All that SAA+ looks with, frozen, on one device."""

    detector: BoxDetector
    segmenter: Segmenter
    network: nn.Module
