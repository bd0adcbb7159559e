"""The image tower as an ONNX file in the user's cache, made once for a backbone and its packages.

`<cache>/engines/<backbone and packages>/tower` holds the graph, its weights and `tower.json`, which
says what it was made of and has a check sum of each file. Beside it lie the answers that hold for
this file on one machine (`choice`). All of it is safe to delete.
"""

import shutil
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fuzzyclip.clip.backbone import Backbone
from fuzzyclip.engines.machine import MAKERS, find_versions, name_facts
from fuzzyclip.engines.onnx_files import WRITERS, write_onnx
from fuzzyclip.engines.quantising import quantise
from fuzzyclip.engines.runners import EMBED, PIXELS, TOKENS
from fuzzyclip.utils.extras import import_extra
from fuzzyclip.utils.files import find_cache, make_folder, write_json
from fuzzyclip.utils.json_text import parse_json
from fuzzyclip.utils.prefetch import release_memory

#: Raised with every change of the graph or of what lies beside it.
LAYOUT = 1
FOLDER, FILE, FACTS = "tower", "tower.onnx", "tower.json"
#: Space that is left free on the disk.
SPARE_BYTES = 2**28
CHUNK = 2**20


class TowerGraph(nn.Module):
    """The image tower as a function of prepared pixels alone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.visual = backbone.model.visual  # so that its weights are the module's
        self.tower, self.blocks = backbone.image_tower, backbone.blocks

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`ImageTower.encode` of the taken blocks."""
        return self.tower.encode(pixels, self.blocks)


def describe_tower(backbone: Backbone) -> dict[str, Any]:
    """All that decides the file, as plain data; the fingerprint covers weights, size and blocks."""
    makers = (*MAKERS, "onnxruntime") if backbone.is_int8 else MAKERS
    return {
        "layout": LAYOUT,
        "backbone": backbone.fingerprint,
        "versions": find_versions(makers),
    }


def find_folder(backbone: Backbone) -> Path:
    """Where a backbone's file and the answers about it lie, there or not."""
    return find_cache() / "engines" / name_facts(describe_tower(backbone))


def read_kept(folder: Path) -> dict[str, Any] | None:
    """The facts of a whole kept tower, see `keep_tower`; None of none, or of a damaged one."""
    place = folder / FOLDER
    facts = read_json(place / FACTS)
    sums = facts.get("files") if facts else None
    if not isinstance(sums, dict) or FILE not in sums:
        return None
    try:
        whole = all(sum_file(place / name) == value for name, value in sums.items())
    except OSError:
        return None
    return facts if whole else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A table of a kept JSON file; None where there is none, or anything else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"), finite=True)
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def keep_tower(backbone: Backbone) -> tuple[Path, str]:
    """The tower's ONNX file, made where it is not there or damaged, and digits of its content.

    Several processes may do so at once: each makes a folder of its own, the first to be done gives
    it its name, and the others take that.

    Raises:
        ExportError: PyTorch can not make a graph of the tower.
        MissingExtraError: a package that writes it is missing.
        OSError: there is no room, or nothing can be written into the cache.
        ValueError: int8 is asked for, and the tower has no layers for it.
    """
    folder = find_folder(backbone)
    facts = read_kept(folder)
    if facts is None:
        for name in WRITERS:
            import_extra(name)
        _check_room(folder, backbone)
        place = folder / FOLDER
        shutil.rmtree(place, ignore_errors=True)  # damaged
        try:
            with make_folder(place) as making:
                making.mkdir()
                _write(backbone, making)
        except OSError:
            if read_kept(folder) is None:  # else another process was faster
                raise
        facts = read_kept(folder)
        if facts is None:
            raise OSError(f"{place}: what was written there can not be read back; look at the disk")
    return folder / FOLDER / FILE, name_facts(facts["files"])


def _check_room(folder: Path, backbone: Backbone) -> None:
    files = 1.25 if backbone.is_int8 else 1.0  # the smaller one is made beside the other
    needed = int(files * count_bytes(backbone)) + SPARE_BYTES
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if (free := shutil.disk_usage(there).free) < needed:
        raise OSError(
            f"{there} has {free / 1e9:.2f} GB free, the image tower as a file needs "
            f"{needed / 1e9:.2f}: make room, or set XDG_CACHE_HOME to another disk"
        )


def count_parameters(backbone: Backbone) -> int:
    """Numbers in the image tower."""
    visual: nn.Module = backbone.image_tower.visual
    return sum(each.numel() for each in visual.parameters())


def count_bytes(backbone: Backbone) -> int:
    """Bytes of the image tower in float32."""
    return count_parameters(backbone) * torch.float32.itemsize


def _write(backbone: Backbone, folder: Path) -> None:
    size = backbone.image_size
    example = torch.zeros(2, 3, size, size)
    names = (PIXELS, (EMBED, TOKENS))
    write_onnx(TowerGraph(backbone), folder / FILE, example, names, title="the image tower")
    if backbone.is_int8:
        quantise(folder / FILE)
    release_memory()
    sums = {path.name: sum_file(path) for path in sorted(folder.iterdir())}
    write_json(folder / FACTS, {"made_of": describe_tower(backbone), "files": sums})


def sum_file(path: Path) -> str:
    """CRC-32 of a file of any size: it guards against chance."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"
