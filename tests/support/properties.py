"""How many examples a property test tries: few in `make test`, all in `make test-all`.

Both draw the same ones every time, so that only a change can break them. `make test-all
EXAMPLES=new` draws others every time; what these find is kept with `@example` above the test that
it broke.
"""

from hypothesis import settings

#: Examples of a test that asks for nothing else.
USUAL = 100
#: Examples at least, of a test that has as many.
LEAST = 10

same = {"derandomize": True, "database": None, "deadline": None}
settings.register_profile("quick", max_examples=USUAL // 4, **same)
settings.register_profile("all", max_examples=USUAL, print_blob=True, **same)
settings.register_profile("new", max_examples=USUAL, print_blob=True, deadline=None)
settings.load_profile("quick")


def try_examples(number, **more):
    """Settings of a test that is tried `number` times in `make test-all`.

    In `make test` a quarter of that, but ten times at least.
    """
    share = number * settings.default.max_examples // USUAL
    return settings(max_examples=min(number, max(LEAST, share)), **more)
