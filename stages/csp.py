"""csp: cluster the auxiliary categories' names and stack them."""

from collections.abc import Sequence

from torch import Tensor

from fuzzyclip.method.csp import (
    Scored,
    choose_partition,
    compute_points,
    project_points,
    score_partitions,
)
from fuzzyclip.method.partitions import is_exact
from fuzzyclip.utils.files import write_json
from stages import paths
from stages.clip import load_clip, make_encoder
from stages.params import load_params
from stages.run import run_stage
from stages.stored import open_auxiliary, read_manifest


def main(key: str) -> None:
    """Make models/<key>/partition.json, and the scores apart from it in metrics/csp.

    A changed penalty changes the scores; what depends on the partition reruns only if it changed.
    """
    params = load_params("csp", key)
    manifest = read_manifest(key)
    encode = make_encoder(load_clip(params), params.text)
    names = manifest["names"]

    def load_images() -> tuple[Tensor, Sequence[str]]:
        auxiliary = open_auxiliary(key, encode.backbone)
        return auxiliary.image_embed, auxiliary.rows["name"].tolist()

    points = compute_points(encode, names, params.csp.points, load_images)
    scored = score_partitions(names, points.numpy(), params.csp, params.seed)
    chosen = choose_partition(scored, params.csp.partition)
    clusters = [{"names": list(group), "stack": encode.stack(group)} for group in chosen.clusters]
    datasets = [member["dataset"] for member in manifest["members"]]
    write_json(
        paths.partition(key),
        {
            "auxiliary": key,
            "datasets": datasets,
            "names": names,
            "stack": encode.stack(names),
            "clusters": clusters,
        },
    )
    places = {
        name: [round(float(value), 4) + 0.0 for value in place]  # no -0.0
        for name, place in zip(names, project_points(points.numpy()), strict=True)
    }
    write_json(paths.csp_scores(key), describe_scores(scored, chosen) | {"points": places})


def describe_scores(scored: list[Scored], chosen: Scored) -> dict[str, object]:
    """Every k with its score and clusters, for people and for the tracker.

    `exact` tells whether each k has the best of all partitions, or the best that a search reached.
    """
    return {
        "exact": is_exact(sum(len(group) for group in chosen.clusters)),
        "k": chosen.k,
        "clusters": [list(group) for group in chosen.clusters],
        "candidates": [
            {
                "k": candidate.k,
                "spread": round(candidate.spread, 6),
                "penalty": round(candidate.penalty, 6),
                "score": round(candidate.score, 6),
                "clusters": [list(group) for group in candidate.clusters],
            }
            for candidate in scored
        ],
    }


if __name__ == "__main__":
    run_stage(csp=main)
