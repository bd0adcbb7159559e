"""Try mutated inputs of a kind: nothing may crash, hang, or be taken for what it is not.

    python -m tools.fuzz params --count 10000 --seed 0
    python -m tools.fuzz params --only 4711 --keep found     one of them again, kept as files
    python -m tools.fuzz all --count 300

A finding is an error that has no line for a person or no file's name in it, an answer that takes
over 10 s or 2 GiB, or content that was accepted and is not what the input says. Ends with 1 if
there is one.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from fuzzyclip.utils.endings import ending
from tools.fuzz.campaign import Tally, Verdict, run_campaign
from tools.fuzz.kinds import KINDS

#: Numbers shown of findings that are alike, and characters by which they are.
SHOWN, ALIKE = 5, 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run campaigns; 1 where something was found."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__, formatter_class=plain
    )
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("--count", type=int, default=10_000, help="inputs (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this number alone")
    parser.add_argument("--keep", type=Path, help="folder for inputs with findings")
    chosen = parser.parse_args(arguments)
    numbers = range(chosen.count) if chosen.only is None else [chosen.only]
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in KINDS if chosen.kind == "all" else [chosen.kind]:
        begun = time.perf_counter()
        tally = run_campaign(name, numbers, chosen.seed, chosen.keep)
        failed |= bool(tally.findings)
        report(name, tally, chosen.seed, time.perf_counter() - begun)
    return failed


def report(name: str, tally: Tally, seed: int, seconds: float) -> None:
    """A line a campaign, and its findings with how to make them again."""
    counts = tally.counts
    print(
        f"{name}: {counts.total()} inputs, {counts['refused']} refused, {counts['accepted']} "
        f"accepted, {counts['finding']} findings, {seconds:.0f} s",
        flush=True,
    )

    def key(verdict: Verdict) -> str:
        return verdict.words[:ALIKE]

    for _, group in groupby(sorted(tally.findings, key=key), key):
        alike = [*group]
        print(f"  {len(alike)} x {alike[0].words}")
        numbers = " or ".join(f"{verdict.number}" for verdict in alike[:SHOWN])
        print(f"      python -m tools.fuzz {name} --seed {seed} --only {numbers}", flush=True)


if __name__ == "__main__":
    with ending():
        sys.exit(main())
