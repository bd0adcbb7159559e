"""Names of categories in prompts, and of datasets in tables."""

from typing import Any

from stages.schema import Dataset


def list_prompt_names(info: dict[str, Any], settings: Dataset) -> dict[str, str]:
    """Category to prompt name, in the dataset's own order, for the categories in the index.

    Args:
        info: from the dataset's index.
        settings: the dataset's entry in params.yaml.

    Raises:
        ValueError: a name is given for a category that the index does not have.
    """
    readable: dict[str, str] = info["categories"]
    names = settings.names
    if names == "readable":
        return readable
    given = {} if names == "raw" else dict(names)
    if unknown := sorted(set(given) - set(readable)):
        raise ValueError(
            f"datasets.*.names: {', '.join(unknown)} is no category of {info['title']}; there are "
            f"{', '.join(readable)}"
        )
    return {category: given.get(category, category) for category in readable}


def name_dataset(key: str, info: dict[str, Any]) -> str:
    """Title of a dataset in tables; one's own images go by their key."""
    title: str = info["title"]
    return key if info["source"] == "own" else title
