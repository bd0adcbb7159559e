"""What of Ray is decided before it starts; tests/slow/test_ray.py starts it."""

import pytest
import yaml
from imports import ROOT

from fuzzyclip.distributed.engine import Pool, size_pool
from stages.schema import Machine


def test_a_device_that_ray_can_not_choose_is_refused():
    machine = yaml.safe_load((ROOT / "params.yaml").read_text())["machine"] | {"device": "cuda:1"}
    assert Machine.model_validate(machine).device == "cuda:1"
    with pytest.raises(ValueError, match="'cuda:1': with the engine ray"):
        Machine.model_validate(machine | {"engine": "ray"})


@pytest.mark.parametrize(
    ("resources", "actors", "use_gpus", "expected"),
    [
        ({"CPU": 64.0, "GPU": 8.0}, None, True, Pool(8, 1, 0.5)),
        ({"CPU": 64.0, "GPU": 8.0}, 3, True, Pool(3, 1, 0.5)),
        ({"CPU": 64.0, "GPU": 8.0}, None, False, Pool(32, 0, 0.5)),
        ({"CPU": 1.0}, None, True, Pool(1, 0, 0.5)),
        ({"CPU": 2.0}, 4, True, Pool(4, 0, 0.25)),
    ],
)
def test_an_actor_for_each_gpu_or_every_two_cpus(resources, actors, use_gpus, expected):
    assert size_pool(resources, actors, use_gpus) == expected
    if not expected.gpus:  # actors that book every CPU hang
        assert expected.actors * expected.cpus <= resources["CPU"] / 2
