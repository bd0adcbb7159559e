"""The compositional prompt ensemble (CPE): from a category's name to two text features.

Every name string, be it one category or several stacked ones, becomes one normal and one anomalous
vector (paper, eq. 1 to 3): fill the name into each state, the state into each template, encode,
normalise, average, normalise.

Shapes: n prompts, D embedding width.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = (
    "damaged {}",
    "broken {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a dark photo of the {}.",
    "a photo of my {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a photo of one {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "a low resolution photo of a {}.",
    "a photo of a large {}.",
    "a blurry photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "a dark photo of a {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

#: The one template of `ensemble="single"`, the reading in which states are not put into CPE.
SINGLE_TEMPLATES = ("a photo of a {}.",)

#: `encode(prompts)` gives the un-normalised text features (n, D).
EncodeText = Callable[[Sequence[str]], Tensor]
#: `count_tokens(prompt)` is the length of a prompt in tokens, start and end included.
CountTokens = Callable[[str], int]


class PromptTooLongError(ValueError):
    """A prompt does not fit the text tower's context; truncating it would drop its last words."""


def build_prompts(name: str, states: Sequence[str], ensemble: str = "full") -> list[str]:
    """All prompts of one side for one name string.

    Args:
        name: a category's name, or several stacked ones.
        states: `NORMAL_STATES` or `ANOMALOUS_STATES`.
        ensemble: `full` (35 templates) or `single` ("a photo of a ...").
    """
    templates = {"full": TEMPLATES, "single": SINGLE_TEMPLATES}[ensemble]
    return [template.format(state.format(name)) for state in states for template in templates]


def stack_names(names: Sequence[str], separator: str = " ", underscore: str = "keep") -> str:
    """The class part of a stacked prompt, `[Cls_a] ... [Cls_n]` (eq. 3).

    Args:
        names: category names, in the order in which they are to stand.
        separator: what stands between two names; the paper shows bare juxtaposition.
        underscore: `keep` leaves `metal_nut` as it is, `space` makes it `metal nut`.
    """
    if underscore not in ("keep", "space"):
        raise ValueError(f"underscore must be 'keep' or 'space', not {underscore!r}")
    stacked = separator.join(names)
    return stacked.replace("_", " ") if underscore == "space" else stacked


def average_prompts(
    encode: EncodeText, sides: Iterable[Sequence[str]], unit: bool = True
) -> Tensor:
    """The mean text feature of each side's prompts, (D, 2), unit columns.

    Args:
        encode: see `EncodeText`.
        sides: prompts of the normal and of the anomalous side.
        unit: whether each prompt's feature is brought to unit length before the mean, as CLIP's
            authors do for ImageNet.
    """
    columns = []
    for prompts in sides:
        embeds = encode(prompts)  # (n, D)
        mean = (F.normalize(embeds, dim=-1) if unit else embeds).mean(dim=0)
        columns.append(F.normalize(mean, dim=-1))
    return torch.stack(columns, dim=1)


def encode_name(name: str, encode: EncodeText, ensemble: str = "full") -> Tensor:
    """The CPE text feature T(name) of one name string, (D, 2), unit columns: normal, anomalous."""
    sides = (build_prompts(name, states, ensemble) for states in (NORMAL_STATES, ANOMALOUS_STATES))
    return average_prompts(encode, sides)


def split_to_fit(
    names: Sequence[str], separator: str, underscore: str, fits: Callable[[str], bool]
) -> list[str]:
    """The fewest consecutive stacks of `names` that each fit the text tower's context.

    Raises:
        PromptTooLongError: a single name does not fit.
    """
    chunks: list[list[str]] = []
    for name in names:
        if chunks and fits(stack_names([*chunks[-1], name], separator, underscore)):
            chunks[-1].append(name)
        elif fits(stack_names([name], separator, underscore)):
            chunks.append([name])
        else:
            raise PromptTooLongError(
                f"the category name {name!r} does not fit one prompt; give it a shorter prompt name"
            )
    return [stack_names(chunk, separator, underscore) for chunk in chunks]


def encode_stack(
    names: Sequence[str],
    encode: EncodeText,
    count_tokens: CountTokens,
    *,
    context_length: int = 77,
    separator: str = " ",
    underscore: str = "keep",
    ensemble: str = "full",
    prefix: str = "",
    suffix: str = "",
) -> Tensor:
    """T(prefix + stacked names + suffix), (D, 2), whole or averaged over chunks that fit.

    A stack that is longer than the context is split into the fewest consecutive chunks that fit and
    their features are averaged: truncation would delete the trailing states, which makes
    "... without flaw" and "... with flaw" the same prompt.

    Args:
        names: the stacked category names.
        encode: see `EncodeText`.
        count_tokens: see `CountTokens`.
        context_length: the text tower's context, start and end token included.
        separator: see `stack_names`.
        underscore: see `stack_names`.
        ensemble: see `build_prompts`.
        prefix: a name that stands before the stack (eq. 9: the tested category).
        suffix: a name that stands after it (Table 8, last row).
    """

    def whole(stack: str) -> str:
        return " ".join(part for part in (prefix, stack, suffix) if part)

    def fits(stack: str) -> bool:
        prompts = build_prompts(whole(stack), (*NORMAL_STATES, *ANOMALOUS_STATES), ensemble)
        return max(map(count_tokens, prompts)) <= context_length

    stacks = [stack_names(names, separator, underscore)]
    if not fits(stacks[0]):
        stacks = split_to_fit(names, separator, underscore, fits)
    embeds = torch.stack([encode_name(whole(stack), encode, ensemble) for stack in stacks])
    return F.normalize(embeds.mean(dim=0), dim=0)  # (D, 2)
