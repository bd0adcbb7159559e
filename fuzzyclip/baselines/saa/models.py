"""The frozen models of SAA+ at work: GroundingDINO finds boxes, SAM refines them, a ResNet sees.

The ResNet serves saliency (`saa.parts`). All three are read from the local disk; nothing is ever
downloaded, and `transformers` is imported here alone.

Shapes: n boxes, S image size.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fuzzyclip.baselines.saa.parts import Boxes
from fuzzyclip.clip.weights import read_state_dict
from fuzzyclip.utils.files import describe_fault

#: Captions that GroundingDINO looks for at a time.
CAPTIONS = 4
#: Boxes that SAM refines at a time, 64 MB of mask logits at 1024 pixels.
CHUNK = 16
#: Layers of the ResNet's last stage and classifier, which saliency does not read.
UNREAD = ("layer4.", "fc.")
#: A folder is read as it lies there, and no code that lies beside the files is run.
SAFELY = {"local_files_only": True, "trust_remote_code": False}


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
        """Boxes of what each caption names in an image (3, S, S) from 0 to 1.

        Captions are phrases that end in full stops; one is added at the end where there is none.
        Thresholds are those of `Saa`.

        Raises:
            ValueError: a caption is longer than the model reads; it would be cut silently.
        """
        resized = self.processor.image_processor(
            images=image.cpu(), do_rescale=False, return_tensors="pt"
        ).to(image.device)
        answers = []
        for first in range(0, len(captions), CAPTIONS):
            words = self._read(captions[first : first + CAPTIONS]).to(image.device)
            count = len(words["input_ids"])
            pixels = {name: part.expand(count, *part.shape[1:]) for name, part in resized.items()}
            answers += self.processor.post_process_grounded_object_detection(
                self.model(**pixels, **words),
                words["input_ids"],
                threshold=box_threshold,
                text_threshold=text_threshold,
            )
        return [Boxes(part["boxes"], part["scores"], part["text_labels"]) for part in answers]

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
        """Masks of what stands in `Boxes.places`, bool, (up to `CHUNK`, S, S) at a time."""
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


class SaaModelError(ValueError):
    """A model of SAA+ is missing or of another kind, or `transformers` is not installed."""


@dataclass(frozen=True)
class ModelFolder:
    """One model that is read from a folder.

    Attributes:
        setting: that names the folder.
        title: of the model.
        kind: `model_type` in the folder's config.json.
        source: where it is to be had.
        classes: of the model and its processor in `transformers`.
    """

    setting: str
    title: str
    kind: str
    source: str
    classes: tuple[str, str]


DETECTOR = ModelFolder(
    "detector_folder",
    "GroundingDINO",
    "grounding-dino",
    "IDEA-Research/grounding-dino-tiny (Swin-T, as published)",
    ("GroundingDinoForObjectDetection", "GroundingDinoProcessor"),
)
SEGMENTER = ModelFolder(
    "segmenter_folder",
    "SAM",
    "sam",
    "facebook/sam-vit-huge (ViT-H, as published; sam-vit-base is seven times smaller)",
    ("SamModel", "SamProcessor"),
)


@lru_cache(maxsize=1)
def load_models(
    detector_folder: str | None,
    segmenter_folder: str | None,
    saliency_weights: str | None,
    device: torch.device,
) -> Models:
    """Read the models, see `Saa`; the last ones stay in memory, for categories follow one another.

    Raises:
        SaaModelError: `transformers` is not installed, or a model is missing or of another kind.
    """
    detector = BoxDetector(*read_part(DETECTOR, detector_folder, device))
    segmenter = Segmenter(*read_part(SEGMENTER, segmenter_folder, device))
    return Models(detector, segmenter, load_network(saliency_weights).to(device))


def read_part(part: ModelFolder, folder: str | None, device: torch.device) -> tuple[Any, Any]:
    """A model, frozen, and its processor, as `save_pretrained` writes both; see `load_models`."""
    transformers, path = import_transformers(), _find_folder(part, folder)
    model_class, processor_class = (getattr(transformers, name) for name in part.classes)
    try:
        model, report = model_class.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, **SAFELY
        )
        processor = processor_class.from_pretrained(path, **SAFELY)
    except Exception as error:
        faults = (describe_fault(file) for file in sorted(path.glob("*.safetensors")))
        reason = next(filter(None, faults), error)
        raise SaaModelError(
            f"{part.setting}: {path} can not be read as {part.title} ({reason}). {_advise(part)}"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise SaaModelError(
            f"{part.setting}: the weights in {path} lack {len(missing)} of {part.title}'s tensors "
            f"({missing[0]}, ...). {_advise(part)}"
        )
    return model.eval().requires_grad_(False).to(device), processor


def load_network(weights: str | None) -> nn.Module:
    """WideResNet-50-2 up to its third stage: an image to maps of 256, 512 and 1024 channels.

    The file may hold timm's or torchvision's ImageNet weights.

    Raises:
        SaaModelError: there is none, or the weights are of another model.
    """
    if not weights:
        raise SaaModelError(
            "saliency_weights: SAA+ needs a file of WideResNet-50-2's ImageNet weights. Get "
            "model.safetensors of timm/wide_resnet50_2.racm_in1k from huggingface.co and give its "
            "path"
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
        network: nn.Module = timm.create_model(
            "wide_resnet50_2", pretrained=False, features_only=True, out_indices=(1, 2, 3)
        )
    state = read_state_dict(Path(weights).expanduser())
    read = {name: state[name] for name in state if not name.startswith(UNREAD)}
    try:
        network.load_state_dict(read)
    except RuntimeError as error:
        raise SaaModelError(
            f"saliency_weights: {weights} are not of timm's wide_resnet50_2: {error}"
        ) from error
    return network.eval().requires_grad_(False)


def import_transformers() -> Any:
    """The package, which is an extra.

    Raises:
        SaaModelError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError as error:
        raise SaaModelError(
            f"SAA+ takes GroundingDINO and SAM from transformers, which is not installed or broken "
            f"({error}): pip install -e '.[saa]'"
        ) from error


def _find_folder(part: ModelFolder, folder: str | None) -> Path:
    """The folder of a model; none, one without a model, and another model's are refused."""
    if not folder:
        raise SaaModelError(f"{part.setting}: SAA+ needs {part.title}. {_advise(part)}")
    path = Path(folder).expanduser()
    try:
        kind = json.loads((path / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise SaaModelError(
            f"{part.setting}: {path} has no readable config.json ({error}). {_advise(part)}"
        ) from error
    if kind != part.kind:
        raise SaaModelError(
            f"{part.setting}: {path} holds a model of type {kind!r}, not {part.title}. "
            f"{_advise(part)}"
        )
    return path


def _advise(part: ModelFolder) -> str:
    return (
        f"Get all files of {part.source} from huggingface.co (config.json, model.safetensors and "
        f"the processor's), put them into one folder and give its path as {part.setting}"
    )
