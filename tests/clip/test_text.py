"""CPE and stacked prompts: counts, lengths, and features against a loop over open_clip's own."""

from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from backbones import load_clip
from hypothesis import given
from hypothesis import strategies as st
from properties import try_examples

from fuzzyclip import sample
from fuzzyclip.clip.encoding import count_tokens, encode_text, tokenize
from fuzzyclip.clip.prompts import (
    ANOMALOUS_STATES,
    NORMAL_STATES,
    PromptTooLongError,
    build_prompts,
    encode_name,
    encode_stack,
    split_to_fit,
    stack_names,
)
from fuzzyclip.datasets import get_dataset
from fuzzyclip.utils.files import compute_sha256

TOKENIZER = open_clip.SimpleTokenizer()
STATES = (*NORMAL_STATES, *ANOMALOUS_STATES)
RAW = {name: list(get_dataset(name).categories) for name in ("mvtec", "visa", "mpdd", "dagm")}
DTD = dict(get_dataset("dtd").categories)
MVTEC_DTD = [*RAW["mvtec"], *DTD]
ALL_NAMES = [*RAW["mvtec"], *RAW["visa"], *RAW["mpdd"], *RAW["dagm"], *DTD]


def count(prompt):
    """Length of a prompt in CLIP's tokens, start and end included."""
    return len(TOKENIZER.encode(prompt)) + 2


def slow_feature(backbone, name, states):
    """Normalise, average, normalise, prompt by prompt, through open_clip's own encode_text."""
    total = torch.zeros(backbone.embed_dim, dtype=torch.float64)
    prompts = build_prompts(name, states)
    for embed in backbone.model.encode_text(TOKENIZER(prompts)).double():
        total += embed / embed.pow(2).sum().sqrt()
    mean = total / len(prompts)
    return mean / mean.pow(2).sum().sqrt()


def record_prompts(seen):
    """An encoder that keeps what it is asked; its features tell prompts apart."""

    def encode(prompts):
        seen.append(list(prompts))
        generator = torch.Generator().manual_seed(sum(map(len, prompts)))
        return torch.randn(len(prompts), 8, generator=generator)

    return encode


def read_stacks(seen):
    """The stacked names in recorded batches; the first of 35 templates is 'a bad photo of a'."""
    normal = [batch for batch in seen if len(batch) == 245]
    return [batch[0].removeprefix("a bad photo of a ").removesuffix(".") for batch in normal]


def test_the_ensemble_has_245_and_175_prompts():
    normal, anomalous = (build_prompts("pill", side) for side in (NORMAL_STATES, ANOMALOUS_STATES))
    assert (len(set(normal)), len(set(anomalous))) == (245, 175)
    assert not set(normal) & set(anomalous)
    assert "a photo of the cool pill without defect." in normal
    assert "there is a broken pill in the scene." in anomalous
    assert build_prompts("pill", ANOMALOUS_STATES, "single") == [
        f"a photo of a {state.format('pill')}." for state in ANOMALOUS_STATES
    ]


@try_examples(25)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=40), st.randoms())
def test_a_prompts_feature_is_the_same_bits_in_any_company(tiny, prompts, random):
    together = encode_text(tiny, prompts)
    order = random.sample(range(len(prompts)), len(prompts))
    assert torch.equal(encode_text(tiny, [prompts[row] for row in order]), together[order])
    row = order[0]
    assert torch.equal(encode_text(tiny, [prompts[row]])[0], together[row])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_place_in_a_pass_of_the_sample_model_changes_a_bit(threads):
    folder = Path(sample.__file__).parent / "weights"
    model, weights = str(folder / "model.json"), folder / "model.safetensors"
    small = load_clip(model, weights, image_size=144, blocks=(8,), sha256=compute_sha256(weights))
    torch.set_num_threads(threads)
    prompts = build_prompts("metal_nut", NORMAL_STATES)[::4]  # of several lengths
    first = encode_text(small, prompts)
    for shift in range(1, 17):  # every place of a pass, and one beyond
        moved = encode_text(small, prompts[shift:] + prompts[:shift])
        assert torch.equal(moved.roll(shift, dims=0), first)
    for row in range(0, len(prompts), 16):
        assert torch.equal(encode_text(small, [prompts[row]])[0], first[row])


@pytest.mark.parametrize("name", ["bottle", "candle capsules pipe_fryum"])
def test_a_name_becomes_the_slow_normal_and_anomalous_feature(tiny, name):
    text_embed = encode_name(name, partial(encode_text, tiny))
    assert text_embed.shape == (32, 2)
    assert torch.allclose(text_embed.norm(dim=0), torch.ones(2), atol=1e-6)
    for column, states in enumerate((NORMAL_STATES, ANOMALOUS_STATES)):
        slow = slow_feature(tiny, name, states).float()
        assert torch.allclose(text_embed[:, column], slow, atol=1e-5)
    assert not torch.allclose(text_embed[:, 0], text_embed[:, 1], atol=1e-3)


def test_a_stack_that_fits_is_one_prompt_of_the_names_in_order(tiny):
    encode, counter = partial(encode_text, tiny), partial(count_tokens, tiny)
    whole = encode_stack(["pill", "metal_nut"], encode, counter, prefix="wood", suffix="tile")
    assert torch.allclose(whole, encode_name("wood pill metal_nut tile", encode), atol=1e-6)
    assert not torch.allclose(whole, encode_stack(["metal_nut", "pill"], encode, counter))


def test_separator_and_underscore():
    names = ["metal_nut", "pill"]
    assert stack_names(names) == "metal_nut pill"
    assert stack_names(names, ", ") == "metal_nut, pill"
    assert stack_names(names, " and ", "space") == "metal nut and pill"
    with pytest.raises(ValueError, match="underscore must be"):
        stack_names(names, underscore="drop")


@pytest.mark.parametrize(
    ("names", "number", "space", "comma"),
    [
        (RAW["visa"], 12, (31, 39), (42, 50)),
        (RAW["mvtec"], 15, (25, 33), (39, 47)),
        (RAW["mvtec"] + RAW["mpdd"], 21, (40, 48), (60, 68)),
        (RAW["mvtec"] + RAW["dagm"], 25, (46, 54), (70, 78)),
        (MVTEC_DTD, 27, (94, 102), (120, 128)),
    ],
    ids=["visa", "mvtec", "mvtec+mpdd", "mvtec+dagm", "mvtec+dtd"],
)
def test_prompt_lengths_of_every_stack(tiny, names, number, space, comma):
    assert len(names) == number
    for separator, expected in ((" ", space), (", ", comma)):
        prompts = build_prompts(stack_names(names, separator), STATES)
        lengths = [count_tokens(tiny, prompt) for prompt in prompts]
        assert (min(lengths), max(lengths)) == expected
        assert lengths[:50] == [count(prompt) for prompt in prompts[:50]]


def test_a_long_stack_is_split_not_truncated():
    seen = []
    text_embed = encode_stack(MVTEC_DTD, record_prompts(seen), count)
    stacks = read_stacks(seen)
    assert " ".join(stacks) == " ".join(MVTEC_DTD)  # every name once, in order
    assert len(stacks) == 2
    assert max(count(prompt) for batch in seen for prompt in batch) <= 77
    parts = torch.stack([encode_name(stack, record_prompts([])) for stack in stacks])
    mean = parts.mean(dim=0)
    assert torch.allclose(text_embed, mean / mean.norm(dim=0), atol=1e-6)


def test_two_prompts_of_420_that_are_one_token_too_long_split_the_stack():
    names, seen = [*RAW["mvtec"], *RAW["dagm"]], []
    lengths = [count(prompt) for prompt in build_prompts(stack_names(names, ", "), STATES)]
    assert sum(length > 77 for length in lengths) == 2
    encode_stack(names, record_prompts(seen), count, separator=", ")
    assert len(read_stacks(seen)) == 2
    encode_stack(names, record_prompts(seen := []), count, separator=", ", context_length=78)
    assert len(read_stacks(seen)) == 1


def test_the_tested_name_stands_in_every_chunk():
    seen = []
    encode_stack(MVTEC_DTD, record_prompts(seen), count, prefix="capsules", suffix="capsules")
    stacks = read_stacks(seen)
    assert all(stack.startswith("capsules ") and stack.endswith(" capsules") for stack in stacks)


@try_examples(100)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(9, 20))
def test_chunks_are_the_fewest_consecutive_ones(lengths, room):
    names = ["x" * length for length in lengths]
    chunks = split_to_fit(names, " ", "keep", lambda stack: len(stack) <= room)
    assert " ".join(chunks) == " ".join(names)
    assert all(len(chunk) <= room for chunk in chunks)
    fewest = [0]  # by the position that a split has reached
    for stop in range(1, len(names) + 1):
        fits = [start for start in range(stop) if len(" ".join(names[start:stop])) <= room]
        fewest.append(1 + min(fewest[start] for start in fits))
    assert len(chunks) == fewest[-1]


def test_a_single_name_that_is_too_long_is_refused():
    with pytest.raises(PromptTooLongError, match="does not fit one prompt"):
        encode_stack(["pill", "very " * 80], record_prompts([]), count)


@try_examples(15)
@given(st.lists(st.sampled_from(ALL_NAMES), min_size=1, max_size=60, unique=True))
def test_with_and_without_flaw_never_become_the_same_ids(tiny, names):
    seen = []
    encode_stack(names, record_prompts(seen), count)
    for normal, anomalous in zip(seen[::2], seen[1::2], strict=True):
        prompts = [*normal, *anomalous]
        ids = [tuple(row[row > 0].tolist()) for row in tokenize(tiny, prompts)]
        assert len(set(ids)) == len(prompts) == 420
