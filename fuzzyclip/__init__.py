"""FuzzyCLIP: clustering-driven stacked prompts for zero-shot anomaly detection.

Importing the package costs nothing: each module is imported where it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzzyclip.model.loaded import FuzzyCLIP

__all__ = ["FuzzyCLIP"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`fuzzyclip.FuzzyCLIP`, imported when it is first asked for."""
    if name == "FuzzyCLIP":
        from fuzzyclip.model.loaded import FuzzyCLIP

        return FuzzyCLIP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
