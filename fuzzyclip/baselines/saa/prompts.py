"""SAA+'s knowledge of categories: words for their defects, how large and how many these are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuzzyclip.utils.ranges import COUNT, POSITIVE, SHARE, Range

#: Captions that name no kind of defect.
AGNOSTIC = ("defect on {}", "damage on {}", "flaw on {}")
#: As published a comma ends the object's caption, left over from the sentence that it stood in.
#: This category's sentence had none.
WITHOUT_COMMA = "chewinggum"


@dataclass(frozen=True)
class CategoryPrompts:
    """Knowledge of a category.

    Attributes:
        captions: words for its defects, besides `AGNOSTIC`; each caption is one look at the image,
            and may hold several phrases that end in full stops.
        thing: the object, as the detector is asked for it; empty takes the category's name.
        background: word for the object in `captions`: their boxes that answer to it are dropped, as
            it means the object itself; empty takes the category's name.
        objects: how many an image shows. Boxes of an object must be smaller than 1 / objects of the
            image. With 1, saliency compares positions of the image with one another; with more,
            those of each object with the other objects'.
        masks: how many defects at most; the best are taken.
        area: share of the largest object's box that boxes of defects must stay under.
    """

    captions: tuple[str, ...] = ("defect.",)
    thing: str = ""
    background: str = ""
    objects: int = 1
    masks: int = 5
    area: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.captions, str):
            raise ValueError(f"captions must be a list, not the one text {self.captions!r}")
        object.__setattr__(self, "captions", tuple(self.captions))
        if not all(caption.strip(" .") for caption in self.captions):
            raise ValueError(f"a caption of {list(self.captions)} is empty")
        COUNT.check("a category", objects=self.objects, masks=self.masks)
        Range(POSITIVE.least, SHARE.most).check("a category", area=self.area)


def read_prompts(
    given: Mapping[str, CategoryPrompts | Mapping[str, Any]],
) -> dict[str, CategoryPrompts]:
    """Prompts by category, blanks for underscores.

    Raises:
        ValueError: a field is unknown or a value refused; names the category.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"prompts must be fields by category, not {given!r}")
    prompts = {}
    for category, known in given.items():
        try:
            read = known if isinstance(known, CategoryPrompts) else CategoryPrompts(**known)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"prompts of {category!r}: {error}") from error
        prompts[category.replace("_", " ")] = read
    return prompts


@dataclass(frozen=True)
class Wording:
    """Captions by which the detector looks at images of a category.

    Attributes:
        name: of the category.
        thing: caption of the object.
        defects: captions of defects, each with the word that means the object itself.
    """

    name: str
    thing: str
    defects: tuple[tuple[str, str], ...]


def word_prompts(category: str, known: CategoryPrompts, published: bool) -> Wording:
    """Captions of a category; as published underscores stay, and a comma ends the object's."""
    name, thing = category, known.thing or category
    if published:
        thing += "" if category == WITHOUT_COMMA else ","
    else:
        name, thing = name.replace("_", " "), thing.replace("_", " ")
    agnostic = [(caption.format(name), name) for caption in AGNOSTIC]
    specific = [(caption, known.background or name) for caption in known.captions]
    return Wording(name, thing, (*agnostic, *specific))
