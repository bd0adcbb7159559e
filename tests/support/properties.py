"""How many examples a property test tries: few in `make test`, all in `make test-all`.

`make test` draws the same ones every time (profile `quick`), `make test-all` others every time
(profile `thorough`). What these find is kept with `@example` above the test that it broke.
"""

from hypothesis import settings

#: Examples of a test that asks for nothing else.
USUAL = 100
#: Examples at least, of a test that has as many.
LEAST = 10

settings.register_profile(
    "quick", max_examples=USUAL // 4, derandomize=True, database=None, deadline=None
)
settings.register_profile("thorough", max_examples=USUAL, deadline=None, print_blob=True)
settings.load_profile("quick")


def try_examples(number, **more):
    """Settings of a test that is tried `number` times in `make test-all`.

    In `make test` a quarter of that, but ten times at least.
    """
    share = number * settings.default.max_examples // USUAL
    return settings(max_examples=min(number, max(LEAST, share)), **more)
