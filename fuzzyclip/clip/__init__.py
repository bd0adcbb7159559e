"""The frozen CLIP: built, filled, frozen, and run."""

from fuzzyclip.clip.imports import import_lightly

import_lightly()
