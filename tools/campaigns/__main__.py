"""Try on purpose what goes wrong; the last line says how often, and how often something was lost.

    python -m tools.campaigns kills --count 9              each command that makes something
    python -m tools.campaigns kills --count 9 --only track
    python -m tools.campaigns permissions                  what may not be read or written
    python -m tools.campaigns tracking --count 20          MLflow's server is killed midway
    python -m tools.campaigns requests --count 500         right and wrong ones in parallel
    python -m tools.campaigns paths                        a checkout in folders of odd names

All of them work in a temporary folder on a small copy of this checkout. docs/reliability.md has the
results.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from fuzzyclip.utils.endings import ending
from tools.campaigns.kills import kill_all, list_targets
from tools.campaigns.odd_path import NAMES, try_paths
from tools.campaigns.parallel import send_all
from tools.campaigns.permissions import CASES, try_permissions
from tools.campaigns.project import CampaignError
from tools.campaigns.tracking import kill_servers

#: How often, unless said otherwise: a command, or in all.
COUNTS = {
    "kills": 3,
    "permissions": len(CASES),
    "tracking": 10,
    "requests": 200,
    "paths": len(NAMES),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; 1 where it has seen a fault."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.campaigns", description=__doc__, formatter_class=plain
    )
    parser.add_argument("campaign", choices=[*COUNTS])
    parser.add_argument("--count", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[*list_targets()], metavar="COMMAND")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work here, and leave it for the next"
    )
    given = parser.parse_args(arguments)
    count = given.count or COUNTS[given.campaign]
    tried, broken = 0, 0
    try:
        with tempfile.TemporaryDirectory(prefix="fuzzyclip-") as temporary:
            folder = given.keep or Path(temporary) / "project"
            trials = start(given.campaign, folder, count, given.seed, given.only or [])
            for faults in tqdm(trials, given.campaign, disable=None):
                tried, broken = tried + 1, broken + bool(faults)
                for fault in faults:
                    print(fault, flush=True)
    except CampaignError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.campaign}: {tried} tried, {broken} with a fault")
    return 1 if broken or not tried else 0


def start(
    campaign: str, folder: Path, count: int, seed: int, only: Sequence[str]
) -> Iterator[list[str]]:
    """The trials of a campaign, each as its faults."""
    if campaign == "kills":
        return kill_all(folder, count, seed, only)
    if campaign == "permissions":
        return try_permissions(folder, count)
    if campaign == "tracking":
        return kill_servers(folder, count, seed)
    if campaign == "requests":
        return send_all(folder, count, seed)
    return try_paths(folder, count)


if __name__ == "__main__":
    with ending():
        sys.exit(main())
