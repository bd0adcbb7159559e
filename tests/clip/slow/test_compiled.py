"""The image tower through torch.compile."""

import torch

from fuzzyclip.clip.encoding import encode_images


def test_a_compiled_tower_gives_the_same_numbers(load_tiny, tiny, pixels):
    compiled = load_tiny(compiled=True)
    assert compiled.fingerprint == tiny.fingerprint  # the last digits are not worth a new store
    for batch in (pixels, pixels[:1]):
        for one, other in zip(
            encode_images(compiled, batch), encode_images(tiny, batch), strict=True
        ):
            assert torch.allclose(one, other, atol=1e-5)
