"""The part of CLIP's vocabulary that the sample CLIP knows, numbered from 1; 0 is unknown.

Numbers keep the order of CLIP's ids, so that the end-of-text token, CLIP's highest, stays highest
and open_clip finds it in the same way.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import open_clip
import torch
from torch import Tensor

from tools.pretrain_sample.captions import ALL_TEMPLATES, DEFECT_STATES, STATES
from tools.pretrain_sample.recipes import CATEGORIES

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
