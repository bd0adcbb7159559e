"""Files of tensors: a model's directory, and the shards of the feature store."""

import hashlib
import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from fuzzyclip.clip.model_configs import read_model_config
from fuzzyclip.features.shards import EMBEDS, PATCH_TOKENS
from fuzzyclip.features.store import open_category
from fuzzyclip.model.card import FILENAME, Card, read_card
from fuzzyclip.model.directory import CONFIG, EFA, RPL, read_parts
from fuzzyclip.utils.files import compute_crc
from fuzzyclip.utils.tensor_files import HEADER, write_rows
from tools.fuzz.kind import Kind, find_bend, find_repeated
from tools.fuzz.kinds.tiny import make_model
from tools.fuzz.mutate import mutate_bytes, mutate_lines, mutate_tree


def split_table(content: bytes) -> tuple[Any, bytes]:
    """The table at the begin of a safetensors file, and what follows it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_table(table: Any, rest: bytes) -> bytes:
    """The file of a table and what follows it."""
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + rest


def mutate_tensor_file(rng: random.Random, content: bytes) -> bytes:
    """Another table, or other bytes anywhere."""
    if rng.random() < 0.6:
        return mutate_bytes(rng, content)
    table, rest = split_table(content)
    return join_table(mutate_tree(rng, table), rest)


class ModelFolder(Kind):
    """model.json, the two parts, and the configuration of the CLIP.

    Half of the other files get their new digest into the card, as somebody would who means ill.
    """

    def prepare(self, folder: Path) -> None:
        self.model = make_model(folder)
        self.files = {path.name: path.read_bytes() for path in self.model.iterdir()}
        self.card = json.loads(self.files[FILENAME])

    def mutate(self, rng: random.Random, place: Path) -> None:
        files, card = dict(self.files), json.loads(self.files[FILENAME])
        way = rng.randrange(8)
        if way <= 3:
            content = files[FILENAME]
            ways = (mutate_bytes, mutate_lines)
            tree = json.dumps(mutate_tree(rng, card)).encode()
            files[FILENAME] = tree if way >= 2 else ways[way](rng, content)
        elif way == 4:
            name = rng.choice([*files])
            files.pop(name) if rng.random() < 0.5 else files.update({name: b""})
        else:
            name = rng.choice((EFA, RPL, CONFIG))
            if name == CONFIG:
                made = json.dumps(mutate_tree(rng, json.loads(files[name]))).encode()
            else:
                made = mutate_tensor_file(rng, files[name])
            files[name] = made
            if way >= 6:
                card["files"][name] = hashlib.sha256(made).hexdigest()
                files[FILENAME] = json.dumps(card).encode()
        for name, content in files.items():
            (place / name).write_bytes(content)

    def read(self, place: Path) -> tuple[Card, Any, Any]:
        card = read_card(place)
        return card, read_parts(place, card), read_model_config(str(place / CONFIG))

    def find_fault(self, place: Path, content: tuple[Card, Any, Any]) -> str:
        """The card as it is written, files of its digests, tensors as the library reads them."""
        card, parts, config = content
        written = (place / FILENAME).read_bytes()
        if fault := find_repeated(written):
            return f"{FILENAME}: {fault}"
        plain = json.loads(written)
        plain |= {"format": 2} if repr(plain.get("format")) == "1" else {}  # the same without marks
        if fault := find_bend(card.model_dump(exclude_unset=True), plain):
            return f"{FILENAME}: {fault}"
        for name, digest in card.files.items():
            if hashlib.sha256((place / name).read_bytes()).hexdigest() != digest:
                return f"{name} has another digest than its card says"
        for name, tensors in parts.items():
            own = load_file(place / name)
            if own.keys() != tensors.keys():
                return f"{name}: other tensors"
            for key, values in own.items():
                if not np.array_equal(values, tensors[key].numpy()):
                    return f"{name}: {key} differs"
                if not np.isfinite(values).all():
                    return f"{name}: {key} is not finite"
        return "" if isinstance(config, dict) else "no configuration"


class Shards(Kind):
    """A category's folder in the feature store.

    A third of the headers get a check sum that fits, as no disk makes it.
    """

    digests = tuple(f"{number:064x}" for number in range(5))

    def prepare(self, folder: Path) -> None:
        self.identity = {
            "format": 2,
            "code": 2,
            "backbone": {"weights_sha256": "0" * 64, "blocks": [1, 2]},
        }
        self.expected = self.identity | {"images": list(self.digests)}
        torch.manual_seed(0)
        self.embeds = torch.randn(5, 8)
        self.tokens = torch.randn(5, 2, 4, 8).half()
        self.folder = folder / "nut"
        self.folder.mkdir()
        for first, last in ((0, 3), (3, 5)):
            header = self.identity | {
                "images": list(self.digests[first:last]),
                "tokens": "float16",
            }
            layout = {EMBEDS: (torch.float32, (8,)), PATCH_TOKENS: (torch.float16, (2, 4, 8))}
            path = self.folder / f"{first // 3:05d}.safetensors"
            with write_rows(path, layout, last - first, header) as writer:
                writer.write(
                    0, {EMBEDS: self.embeds[first:last], PATCH_TOKENS: self.tokens[first:last]}
                )
        self.paths = sorted(self.folder.iterdir())

    def mutate(self, rng: random.Random, place: Path) -> None:
        for path in self.paths:
            shutil.copyfile(path, place / path.name)
        path = place / rng.choice(self.paths).name
        way = rng.randrange(12)
        if way == 0:
            path.unlink()
        elif way == 1:
            shutil.copyfile(self.paths[0], place / "00002.safetensors")
        elif way <= 5:
            table, rest = split_table(path.read_bytes())
            _, _, text = table["__metadata__"][HEADER].partition(" ")
            text = json.dumps(mutate_tree(rng, json.loads(text)))
            table["__metadata__"][HEADER] = f"{compute_crc(text.encode())} {text}"
            path.write_bytes(join_table(table, rest))
        else:
            path.write_bytes(mutate_tensor_file(rng, path.read_bytes()))

    def read(self, place: Path) -> tuple[Any, Any]:
        category = open_category(place, self.expected)
        return category.image_embed, category.read_tokens(
            [*range(5)]
        ) if category.has_tokens else None

    def find_fault(self, place: Path, content: tuple[Any, Any]) -> str:
        """The very numbers that were stored."""
        embeds, tokens = content
        if not torch.equal(embeds, self.embeds):
            return "other class features"
        whole = tokens is None or torch.equal(tokens, self.tokens.float())
        return "" if whole else "other patch tokens"
