"""csp: cluster the auxiliary categories' names and stack them."""

import torch
from torch import Tensor

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.clip.encoding import normalise
from fuzzyclip.clip.prompts import stack_names
from fuzzyclip.method.csp import Scored, choose_partition, project_points, score_partitions
from fuzzyclip.utils.files import write_json
from stages import paths
from stages.clip import CLIP_PARAMS, encode_names, load_clip, open_texts
from stages.members import open_auxiliary, read_manifest
from stages.params import load_params
from stages.run import run_stage
from stages.schema import Params

PARAMS = (*CLIP_PARAMS, "seed", "text", "csp")


def main(key: str) -> None:
    """Make models/<key>/partition.json, and the scores apart from it in metrics/csp.

    A changed penalty changes the scores; what depends on the partition reruns only if it changed.
    """
    params = load_params(PARAMS, key=key)
    manifest = read_manifest(key)
    backbone = load_clip(params)
    names = manifest["names"]
    points = compute_points(backbone, params, key, names)
    scored = score_partitions(names, points.numpy(), params.csp, params.seed)
    chosen = choose_partition(scored, params.csp.partition)
    separator, underscore = params.text.separator, params.text.underscore
    clusters = [
        {"names": list(group), "stack": stack_names(group, separator, underscore)}
        for group in chosen.clusters
    ]
    datasets = [member["dataset"] for member in manifest["members"]]
    write_json(
        paths.partition(key),
        {
            "auxiliary": key,
            "datasets": datasets,
            "names": names,
            "stack": stack_names(names, separator, underscore),
            "clusters": clusters,
        },
    )
    places = {
        name: [round(float(value), 4) + 0.0 for value in place]  # no -0.0
        for name, place in zip(names, project_points(points.numpy()), strict=True)
    }
    write_json(paths.csp_scores(key), describe_scores(scored, chosen) | {"points": places})


def compute_points(backbone: Backbone, params: Params, key: str, names: list[str]) -> Tensor:
    """One unit vector a category, (N, D) or (N, 2D) for `both`; see `csp.points`."""
    kind = params.csp.points
    if kind == "bare":
        sentences = [f"a photo of a {name}." for name in names]
        return normalise(open_texts(backbone).encode(sentences)).cpu()
    if kind == "image":
        auxiliary = open_auxiliary(key, backbone)
        embeds, owners = normalise(auxiliary.image_embed), auxiliary.rows["name"].to_numpy()
        means = [embeds[torch.from_numpy(owners == name)].mean(dim=0) for name in names]
        return normalise(torch.stack(means))
    sides = torch.stack([encode_names(backbone, params, [name]) for name in names])  # (N, D, 2)
    if kind == "both":
        return normalise(sides.transpose(1, 2).flatten(1)).cpu()
    return sides[:, :, 0].cpu()


def describe_scores(scored: list[Scored], chosen: Scored) -> dict[str, object]:
    """Every k with its score and clusters, for people and for the tracker."""
    return {
        "k": chosen.k,
        "clusters": [list(group) for group in chosen.clusters],
        "candidates": [
            {
                "k": one.k,
                "spread": round(one.spread, 6),
                "penalty": round(one.penalty, 6),
                "score": round(one.score, 6),
                "clusters": [list(group) for group in one.clusters],
            }
            for one in scored
        ],
    }


if __name__ == "__main__":
    run_stage("csp", main, keyed=True)
