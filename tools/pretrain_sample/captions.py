"""Captions for pretraining: states and templates of the method around real and made-up names.

The text tower has to say "flawless" or "damaged" whatever the name is, since the evaluation's names
are new to it and the method stacks names. So names are also made up of random words, and stacked.

The vocabulary numbers the tokens that are kept from 1; 0 is unknown. Numbers keep the order of
CLIP's ids, so that the end-of-text token, CLIP's highest, stays highest and open_clip finds it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from torch import Tensor

from fuzzyclip.clip.prompts import ANOMALOUS_STATES, NORMAL_STATES, TEMPLATES
from tools.pretrain_sample.kinds import KINDS_OF_THINGS
from tools.pretrain_sample.recipes import CATEGORIES

STATES: tuple[tuple[str, ...], tuple[str, ...]] = (NORMAL_STATES, ANOMALOUS_STATES)

#: Whole sentences, normal and anomalous (paper, Table 9).
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
    """A random caption that names the defect: kind 0 is none, then those of `DEFECT_STATES`."""
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


COMMON_ROWS = 512 + 4096  # letters, digits, signs, and the most frequent merges of the BPE

_OFFICIAL = """
bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor
wood zipper
candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum
01 02 03
bracket_black bracket_brown bracket_white connector metal_plate tubes
Class1 Class2 Class3 Class4 Class5 Class6 Class7 Class8 Class9 Class10
Blotchy_099 Fibrous_183 Marbled_078 Matted_069 Mesh_114 Perforated_037 Stratified_154
Woven_001 Woven_068 Woven_104 Woven_125 Woven_127
"""

_USEFUL = """
object part product item surface texture material fabric cloth textile plastic rubber glass metal
steel iron copper aluminium brass ceramic wooden stone concrete paper cardboard foil film wire
cable plug pipe hose valve pump motor engine bearing gear shaft spring screw nut bolt washer rivet
nail hook chain belt wheel tyre brake blade tool hammer drill pin ring seal gasket lid cap cup mug
bowl plate dish fork knife spoon jar can box bag sack tray shelf label sticker print coin button
zipper thread needle yarn shoe sole heel glove hat battery lamp bulb led lens mirror screen
display panel board circuit chip resistor capacitor sensor relay fuse connector socket keyboard
phone camera solar cell wafer magnet coil tablet pill syringe vial bottle toothbrush sponge soap
candle pencil pen brush bread biscuit cookie cake pasta noodle rice bean nut almond peanut
hazelnut fruit apple orange banana lemon tomato potato carrot egg cheese meat sausage fish candy
chocolate gum pastry cracker chips coffee tea seed grain leaf flower wood plank board tile brick
marble granite floor wall roof road asphalt weld casting forging sheet coating paint varnish hole
dent rust bracket frame door window handle hinge lock
"""

#: Category names of the seven datasets of the paper, as their folders are called.
OFFICIAL_CATEGORIES = (*_OFFICIAL.split(), "electrical commutators")

#: Words for a user's own parts beyond the most frequent ones.
USEFUL_WORDS = tuple(_USEFUL.split())


def collect_token_ids(texts: Iterable[str]) -> list[int]:
    """Sorted ids of every token in the texts, of the common rows, and of start and end."""
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    ids = set(range(COMMON_ROWS)) | {tokenizer.sot_token_id, tokenizer.eot_token_id}
    for text in texts:
        ids.update(tokenizer.encode(text))
    return sorted(ids)


class Vocabulary:
    """Turns captions into the numbers of the kept rows.

    Attributes:
        token_ids: CLIP's ids of the kept rows; number i + 1 stands for token_ids[i].
        known_words: words of one kept token each, to make up names with.
        strange_words: words of one token that is not kept.
    """

    def __init__(self) -> None:
        self._tokenizer = open_clip.get_tokenizer("ViT-B-32")
        phrases = [text.format("") for text in (*ALL_TEMPLATES, *STATES[0], *STATES[1])]
        phrases += [text.format("") for texts in DEFECT_STATES.values() for text in texts]
        names = [*OFFICIAL_CATEGORIES, *USEFUL_WORDS, *CATEGORIES]
        names += [thing for things in KINDS_OF_THINGS for thing in things]
        names += [name.replace("_", " ") for name in OFFICIAL_CATEGORIES]
        self.token_ids = collect_token_ids([*phrases, *names])
        self._numbers = np.zeros(self._tokenizer.vocab_size, np.int64)
        self._numbers[self.token_ids] = np.arange(1, len(self.token_ids) + 1)
        self.known_words: list[str] = []
        self.strange_words: list[str] = []
        for token, text in self._tokenizer.decoder.items():
            word = text.removesuffix("</w>")
            if text.endswith("</w>") and word.isascii() and word.isalpha() and len(word) > 2:
                known = self._numbers[token] > 0
                (self.known_words if known else self.strange_words).append(word)

    @property
    def unknown_id(self) -> int:
        """CLIP's id of a token whose row is not kept."""
        return int(np.flatnonzero(self._numbers == 0)[0])

    def __len__(self) -> int:
        return len(self.token_ids) + 1

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Numbers (n, longest caption) of captions, cut after the last end of text.

        Raises:
            ValueError: a caption does not fit CLIP's context of 77 tokens.
        """
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        rows = [[start, *self._tokenizer.encode(caption), end] for caption in captions]
        longest = max(map(len, rows))
        if longest > 77:
            raise ValueError(f"a caption has {longest} tokens; CLIP's context holds 77")
        numbers = np.zeros((len(rows), longest), np.int64)
        for row, ids in zip(numbers, rows, strict=True):
            row[: len(ids)] = self._numbers[ids]
        return torch.from_numpy(numbers)
