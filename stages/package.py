"""package: a trained model as one directory, for use outside of the pipeline."""

import json
import shutil

from fuzzyclip.model.directory import is_small, write_model
from fuzzyclip.utils.settings import EfaTest
from stages import paths
from stages.clip import load_clip
from stages.params import choose_settings, load_params
from stages.run import run_stage


def main(key: str) -> None:
    """Make models/<key>/fuzzyclip."""
    params = load_params("package", key)
    backbone, out, wanted = load_clip(params), paths.package(key), params.package.weights
    members = json.loads(paths.auxiliary(key).read_text())["members"]
    shutil.rmtree(out, ignore_errors=True)
    write_model(
        out,
        name=key,
        backbone=backbone,
        copy=is_small(backbone.settings.weights) if wanted == "auto" else wanted == "copy",
        efa=paths.heads(key),
        rpl=paths.prompts(key),
        text=params.text,
        test=choose_settings(EfaTest, params, "efa.test", key),
        licences={member["dataset"]: member["licence"] for member in members},
        sources={member["dataset"]: member["source"] for member in members},
    )


if __name__ == "__main__":
    run_stage(package=main)
