"""package: a trained model as one directory, for use outside of the pipeline."""

import shutil

from fuzzyclip.model.card import EfaTestCard, TextCard
from fuzzyclip.model.directory import WeightsSource, is_small, write_model
from stages import paths
from stages.clip import CLIP_PARAMS, load_clip
from stages.members import read_manifest
from stages.params import load_params
from stages.run import run_stage

PARAMS = (*CLIP_PARAMS, "text", "efa.test", "package")


def main(key: str) -> None:
    """Make models/<key>/fuzzyclip."""
    params = load_params(PARAMS, key=key)
    clip, out, wanted = (
        params.backbones[params.backbone],
        paths.package(key),
        params.package.weights,
    )
    copy = is_small(clip.weights) if wanted == "auto" else wanted == "copy"
    shutil.rmtree(out, ignore_errors=True)
    text, test = params.text, params.efa.test
    members = read_manifest(key)["members"]
    write_model(
        out,
        name=key,
        backbone=load_clip(params),
        source=WeightsSource(clip.model, clip.weights, copy),
        efa=paths.heads(key),
        rpl=paths.prompts(key),
        text=TextCard(ensemble=text.ensemble, separator=text.separator, underscore=text.underscore),
        test=EfaTestCard(
            prompt=test.prompt,
            weights=test.weights,
            temperature=test.temperature,
            sigma=test.sigma,
        ),
        licences={one["dataset"]: one["licence"] for one in members},
        sources={one["dataset"]: one["source"] for one in members},
    )


if __name__ == "__main__":
    run_stage(package=main)
