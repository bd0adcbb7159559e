"""The kinds of inputs by name; a module is imported in the process that works with it."""

from importlib import import_module

from tools.fuzz.kind import Kind

#: Kind to module and class.
KINDS = {
    "archives": ("archives", "Archives"),
    "images": ("pictures", "Images"),
    "masks": ("pictures", "Masks"),
    "meta": ("texts", "Meta"),
    "index": ("texts", "IndexFiles"),
    "params": ("texts", "ParamsFile"),
    "catalog": ("texts", "CatalogFile"),
    "model": ("tensors", "ModelFolder"),
    "shards": ("tensors", "Shards"),
    "checkpoints": ("training", "Checkpoints"),
    "requests": ("requests", "Requests"),
}


def load_kind(name: str) -> Kind:
    """A kind by name."""
    module, kind = KINDS[name]
    loaded: Kind = getattr(import_module(f"tools.fuzz.kinds.{module}"), kind)()
    return loaded
