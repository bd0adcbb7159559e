"""How long engines take for the image tower, measured side by side on one machine."""

import time
from collections.abc import Callable, Mapping

#: Turns of each way; its least time counts, because what else runs on a machine only adds time.
ROUNDS = 3

Clock = Callable[[], float]


def measure_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Least seconds of each way, which take turns so that a busy minute does not fall on one."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = clock()
            run()
            spent[name].append(clock() - start)
    return {name: min(turns) for name, turns in spent.items()}
