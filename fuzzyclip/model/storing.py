"""Adding to a model: thresholds and remembered parts of a category, in place or in a copy."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from fuzzyclip.method.normal_memory import NormalMemory
from fuzzyclip.model.card import Calibration, Card, ModelError, read_card
from fuzzyclip.model.directory import write_card
from fuzzyclip.model.memories import write_memory
from fuzzyclip.utils.files import flush_tree
from fuzzyclip.utils.tree import DatasetError, copy_tree, read_tree


def store(
    folder: Path,
    category: str,
    calibration: Calibration,
    *,
    memory: NormalMemory | None = None,
    references: Sequence[str] = (),
    out: Path | None = None,
) -> Card:
    """Write a category's thresholds, and its memory, into a model.

    Args:
        folder: the model's directory.
        category: as it stands in the prompts; what was stored of it is replaced.
        calibration: its thresholds.
        memory: its good parts, where they took part.
        references: names of their images.
        out: directory of a copy that is changed instead; must not exist.

    Raises:
        ModelError: `out` exists, or the model's directory holds what is not to be copied.
    """
    if out is None:
        return _change(folder, category, calibration, memory, references)
    if out.exists():
        raise ModelError(f"{out} exists already; name another place or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    making = out.with_name(f".{out.name}.{uuid4().hex}.tmp")
    try:
        copy_tree(read_tree(folder, linked=True), making)
        card = _change(making, category, calibration, memory, references)
        flush_tree(making)
        making.rename(out)
    except DatasetError as error:
        raise ModelError(str(error)) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return card


def _change(
    folder: Path,
    category: str,
    calibration: Calibration,
    memory: NormalMemory | None,
    references: Sequence[str],
) -> Card:
    card = read_card(folder)
    old = card.memories.get(category)
    memories = {name: entry for name, entry in card.memories.items() if name != category}
    if memory is not None:
        memories[category] = write_memory(folder, category, memory, references)
    changed = card.model_copy(
        update={
            "memories": memories,
            "calibrations": card.calibrations | {category: calibration},
        }
    )
    write_card(folder, changed)
    if old is not None and old.file not in {entry.file for entry in memories.values()}:
        (folder / old.file).unlink(missing_ok=True)
    return changed
