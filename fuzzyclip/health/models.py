"""Checks of the sample CLIP, of OpenAI's weights in the cache, and of trained models."""

import time
from pathlib import Path

from fuzzyclip.health.data import is_non_commercial
from fuzzyclip.health.installation import Check
from fuzzyclip.utils.files import compute_sha256

#: SHA-256 of the sample CLIP's weights as they come with the package.
SAMPLE_SHA256 = "2735906e7f4a02d752bef7442f6cd26c4fe498c0d57054262375fa8787b42ee3"
SAMPLE_SIZE, SAMPLE_BLOCKS = 144, (5, 6, 7, 8)
REINSTALL = "install FuzzyCLIP again (in a checkout: git checkout fuzzyclip/sample/weights)"
#: The paper's CLIP, by open_clip's names.
PAPER_MODEL, PAPER_TAG = "ViT-L-14-336", "openai"


def check_sample_weights() -> list[Check]:
    """The check that the sample CLIP's files are there and are the ones that were published."""
    from fuzzyclip.clip.weights import SAMPLE_CONFIG, SAMPLE_WEIGHTS

    for path in (SAMPLE_CONFIG, SAMPLE_WEIGHTS):
        if not path.is_file():
            return [Check("sample CLIP", "fail", f"{path} is missing", REINSTALL)]
    digest = compute_sha256(SAMPLE_WEIGHTS)
    if digest != SAMPLE_SHA256:
        fault = f"{SAMPLE_WEIGHTS} has SHA-256 {digest}, not {SAMPLE_SHA256}"
        return [Check("sample CLIP", "fail", fault, REINSTALL)]
    return [Check("sample CLIP", "ok", f"weights are there, SHA-256 {digest[:12]}...")]


def check_cached_weights() -> list[Check]:
    """The check that the paper's CLIP could be loaded without a network."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    from open_clip.pretrained import get_pretrained_cfg

    from fuzzyclip.clip.weights import read_published_sha256

    entry = get_pretrained_cfg(PAPER_MODEL, PAPER_TAG)
    repository = entry["hf_hub"].rstrip("/")
    name, digest = f"weights {PAPER_MODEL}", read_published_sha256(entry)
    own = Path("~/.cache/clip").expanduser() / Path(entry["url"]).name
    if own.is_file() and compute_sha256(own) == digest:
        return [Check(name, "ok", f"{own}, {own.stat().st_size / 1e9:.2f} GB")]
    for filename in (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        path = try_to_load_from_cache(repository, filename)
        if isinstance(path, str) and Path(path).is_file():
            state = f"{path}, {Path(path).stat().st_size / 1e9:.2f} GB: no published SHA-256 fits"
            advice = f"set its `sha256` or `allow_unverified`, or get {entry['url']}"
            return [Check(name, "warn", state, advice)]
    state = "OpenAI's weights are not in the cache; they are fetched when they are first used"
    if own.is_file():
        state += f"; {own} is damaged or half of it: its SHA-256 is not {digest}"
    advice = f"offline: get {entry['url']} elsewhere; docs/real-model.md goes on from there"
    return [Check(name, "warn", state, advice)]


def check_model(
    folder: Path, verify_key: Path | None = None, signature: Path | None = None
) -> list[Check]:
    """Checks of a trained model's directory: card, files, weights, licences of training data.

    Where a key is given, the signature comes first: nothing is read of a model that lacks it.
    """
    from fuzzyclip.model.card import FILENAME, read_card
    from fuzzyclip.model.directory import read_parts
    from fuzzyclip.model.signing import check_signature

    name = f"model {folder.name}"
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "no such folder"
        advice = f"name the folder of a model, with {FILENAME} in it"
        return [Check(name, "fail", f"{folder}: {kind}", advice)]
    try:
        check_signature(folder, verify_key, signature)
    except (ValueError, OSError) as error:
        return [Check(name, "fail", str(error), "get it again from whoever signed it")]
    try:
        card = read_card(folder)
        read_parts(folder, card)
    except (ValueError, OSError) as error:
        return [Check(name, "fail", str(error), "package the model again, or copy it whole")]
    state = "whole and as signed" if verify_key else "whole"
    data = card.data
    training = "without training" if data is None else f"trained on {data.auxiliary}"
    checks = [
        Check(
            name,
            "ok",
            f"{card.name}: files are {state}, {training}; "
            f"calibrated for {', '.join(card.calibrations) or 'no category'}",
        )
    ]
    own = card.backbone
    if own.place == "elsewhere":
        fault = f"the weights of its CLIP are not inside: {own.weights}, SHA-256 {own.sha256}"
        checks.append(Check(name, "warn", fault, "give their path as `weights` where it is used"))
    elif own.place == "inside" and compute_sha256(folder / own.weights) != own.sha256:
        fault = f"{folder / own.weights} is not the file of SHA-256 {own.sha256}"
        checks.append(Check(name, "fail", fault, "copy the model's directory again"))
    bound = {
        f"{dataset} ({licence})"
        for dataset, licence in (data.licences if data else {}).items()
        if is_non_commercial(licence) and data and data.sources.get(dataset) != "sample"
    }
    if bound:
        fault = f"trained on {', '.join(sorted(bound))}: not for commercial use"
        checks.append(Check(name, "warn", fault, "train on data of your own for that"))
    return checks


def run_sample() -> list[Check]:
    """The check that a drawn image goes through the sample CLIP on the device `auto` takes."""
    import numpy as np
    from PIL import Image

    from fuzzyclip.clip.backbone import load_backbone
    from fuzzyclip.clip.encoding import encode_images, preprocess
    from fuzzyclip.clip.weights import SAMPLE_CONFIG, SAMPLE_WEIGHTS
    from fuzzyclip.sample.draw import draw_part
    from fuzzyclip.sample.evaluation_recipes import EVALUATION
    from fuzzyclip.utils.settings import BackboneSettings

    start = time.perf_counter()
    settings = BackboneSettings(
        model=str(SAMPLE_CONFIG),
        weights=str(SAMPLE_WEIGHTS),
        sha256=SAMPLE_SHA256,
        image_size=SAMPLE_SIZE,
        blocks=SAMPLE_BLOCKS,
    )
    backbone = load_backbone(settings)
    loaded = time.perf_counter()
    pixels, _ = draw_part(next(iter(EVALUATION.values())), np.random.default_rng(0))  # (H, W, 3)
    batch = preprocess(Image.fromarray(pixels), backbone)[None]  # (1, 3, S, S)
    image_embed, patch_tokens = encode_images(backbone, batch)
    taken = time.perf_counter() - loaded
    if not (image_embed.isfinite().all() and patch_tokens.isfinite().all()):
        result = f"the sample CLIP gives numbers that are none, on {backbone.device}"
        advice = "use the device cpu; update PyTorch or the driver"
        return [Check("test run", "fail", result, advice)]
    result = f"one drawn image through the sample CLIP in {taken:.2f} s on {backbone.device}, "
    return [Check("test run", "ok", f"{result}after {loaded - start:.1f} s of loading")]
