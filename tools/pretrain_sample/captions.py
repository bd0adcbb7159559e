"""Captions for pretraining: states and templates of the method around real and made-up names.

The text tower has to say "flawless" or "damaged" whatever the name is, since the evaluation's names
are new to it and the method stacks names. So names are also made up of random words, and stacked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuzzyclip.clip.prompts import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES

STATES: tuple[tuple[str, ...], tuple[str, ...]] = (NORMAL_STATES, ABNORMAL_STATES)

#: Whole sentences, normal and abnormal (paper, Table 9).
SENTENCES = (
    ("a photo of a good {}", "a photo of a damaged {}"),
    ("This is a good photo of {}", "This is a damaged photo of {}"),
    ("It is a photo of a {} without damage", "It is a photo of a {} with damage"),
    ("There is not a damaged {} in the photo", "There is a damaged {} in the photo"),
    (
        "It is a good, perfect and pristine picture of {}",
        "It is a damaged, flawed, and broken picture of {}",
    ),
)
ALL_TEMPLATES = (*TEMPLATES, *(sentence for pair in SENTENCES for sentence in pair))
#: What captions of pictures say of each defect; a caption may also speak of damage in general.
DEFECT_STATES: dict[str, tuple[str, ...]] = {
    "scratch": ("scratched {}", "{} with a scratch"),
    "crack": ("cracked {}", "{} with a crack"),
    "hole": ("{} with a hole", "pierced {}"),
    "stain": ("stained {}", "{} with a stain"),
    "missing": ("{} with a missing piece", "incomplete {}"),
    "specks": ("dirty {}", "{} with dust"),
}
GENERAL_SHARE = 0.35
SENTENCE_SHARE = 0.15
LONGEST_STACK = 16


@dataclass(frozen=True)
class Words:
    """Words that names are made of."""

    categories: Sequence[str]  # names of the pretraining's categories
    known: Sequence[str]  # words whose embedding is kept
    strange: Sequence[str]  # words without an embedding of their own


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def make_caption(name: str, state: int, rng: np.random.Generator) -> str:
    """A random caption that says a part is normal (state 0) or anomalous (state 1)."""
    if rng.random() < SENTENCE_SHARE:
        return SENTENCES[int(rng.integers(len(SENTENCES)))][state].format(name)
    phrase = _pick(STATES[state], rng).format(name)
    return _pick(TEMPLATES, rng).format(phrase)


def make_defect_caption(
    name: str, kind: int, rng: np.random.Generator, general_share: float = 0.0
) -> str:
    """A random caption that names the defect: kind 0 is none, then those of `DEFECT_STATES`.

    Args:
        name: the part.
        kind: number of the defect.
        rng: source of all choices.
        general_share: how often a defect is called just damage.
    """
    if kind == 0 or rng.random() < general_share:
        return make_caption(name, min(kind, 1), rng)
    phrases = tuple(DEFECT_STATES.values())[kind - 1]
    return _pick(TEMPLATES, rng).format(_pick(phrases, rng).format(name))


def _make_word(words: Words, rng: np.random.Generator) -> str:
    """A made-up name of one or two words, at times with an id as the datasets have them."""
    pool = words.strange if rng.random() < 0.1 else words.known
    name = _pick(pool, rng)
    kind = rng.random()
    if kind < 0.2:
        return f"{name}_{_pick(words.known, rng)}"
    if kind < 0.35:
        return f"{name}{rng.integers(1, 13)}"
    if kind < 0.42:
        return f"{name}_{rng.integers(200):03d}"
    if kind < 0.47:
        return f"{rng.integers(1, 13):02d}"
    return name


def _make_name(words: Words, rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return _pick(words.categories, rng)
    return _make_word(words, rng)


def make_names(count: int, words: Words, rng: np.random.Generator) -> list[str]:
    """Names that are not the picture's own: "object", made-up ones, and one stack.

    Args:
        count: number of names, at least 3.
        words: what names are made of.
        rng: source of the choice.
    """
    stack = [_make_name(words, rng) for _ in range(rng.integers(2, LONGEST_STACK + 1))]
    while sum(map(len, stack)) > 110:  # some 40 tokens, as long as the method's stacks become
        stack.pop()
    return ["object", " ".join(stack), *(_make_name(words, rng) for _ in range(count - 2))]
