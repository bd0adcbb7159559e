"""Settings: they take the words that the library knows, and files say all of them."""

from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from schemas import list_choices, list_unbounded

from fuzzyclip.method import OWN, VARIANTS
from fuzzyclip.method.efa import WEIGHTS
from fuzzyclip.method.rpl import TEMPLATES
from fuzzyclip.method.scorer import TEST_PROMPTS
from fuzzyclip.utils import settings
from fuzzyclip.utils.settings import (
    BackboneSettings,
    EfaTest,
    PromptShape,
    Record,
    RplSettings,
    TextSettings,
    Whole,
)

ALL = [
    each
    for each in vars(settings).values()
    if isinstance(each, type) and issubclass(each, Record) and each is not Record
]
PLACES = {"model": "ViT-B-16", "weights": "random", "image_size": 224}


def test_words_are_those_that_the_library_knows():
    assert list_choices(EfaTest, "prompt") == tuple(TEST_PROMPTS)
    assert get_args(list_choices(EfaTest, "weights")[0]) == tuple(WEIGHTS)
    assert list_choices(PromptShape, "template") == tuple(TEMPLATES)
    assert (*get_args(settings.Variant), OWN) == tuple(VARIANTS)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_number_has_bounds_and_every_field_is_described(kind):
    assert list_unbounded(kind) == []
    for base in kind.__mro__[:-1]:
        for name in vars(base).get("__annotations__", ()) if base in ALL else ():
            assert f"        {name}: " in (base.__doc__ or ""), name


@pytest.mark.parametrize("blocks", [(4, 2), (1, 1), (0, 1), (True,)])
def test_blocks_come_in_their_own_order(blocks):
    with pytest.raises(ValidationError, match="blocks"):
        BackboneSettings(**PLACES, blocks=blocks)


def test_a_file_says_every_field_and_code_need_not():
    whole = TypeAdapter(Whole[TextSettings])
    assert whole.validate_python(TextSettings()) == TextSettings()
    assert whole.validate_python(TextSettings().model_dump()) == TextSettings()
    for name in TextSettings.model_fields:
        with pytest.raises(ValidationError, match=rf"{name}\n  Field required"):
            whole.validate_python(TextSettings().model_dump(exclude={name}))


def test_the_weight_of_the_text_is_a_number_or_the_width():
    assert RplSettings().weigh_text(768) == 768.0
    assert RplSettings(text_weight="1e-3").weigh_text(768) == 0.001
