"""Names of categories in prompts."""

import pandas as pd

from stages.params import Dataset


def list_prompt_names(
    frame: pd.DataFrame, readable: dict[str, str], settings: Dataset
) -> dict[str, str]:
    """Category to prompt name, in the dataset's own order, for the categories in the index."""
    present = set(frame["category"])
    return {
        category: name if settings.names == "readable" else category
        for category, name in readable.items()
        if category in present
    }
