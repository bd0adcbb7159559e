"""views: what some baselines read in place of the run's patch tokens, once for all that read it.

It is another kind of features, or another CLIP's; `views` in params.yaml says whose.
"""

from fuzzyclip.baselines.registry import build_method
from stages.clip import load_clip
from stages.features import encode_dataset
from stages.params import ParamsError, load_params, resolve
from stages.run import run_stage

PARAMS = (
    "backbone",
    "backbones",
    "data.source",
    "features",
    "views.${key}",
    "methods.${item}",
)


def main(key: str) -> None:
    """Make features/<key>, a folder a dataset."""
    method = load_params(("views.${key}",), key=key).views[key]
    # Why sets are auxiliary decides only whether tokens are kept, and datasets come from the index.
    params = load_params((*PARAMS, "auxiliary", "datasets"), key=key, item=method)
    block, source = params.methods[method], params.data.source
    settings = resolve(block.settings, "", source, f"methods.{method}")
    kind, clip = build_method(method, settings).kind, block.choose_backbone(params.backbone)
    if not kind.stored:
        raise ParamsError(f"views.{key}: {method} reads images anew, of which nothing is stored")
    backbone = load_clip(params, clip)
    for dataset in params.datasets:
        encode_dataset(f"views@{key}", key, dataset, kind, backbone, clip, params)


if __name__ == "__main__":
    run_stage(views=main)
