"""Requests to a server: rows and params, as JSON or MLflow's table may bring them."""

import base64
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzyclip.deploy.request import Options
from fuzzyclip.deploy.serving import OUTPUTS, Responder
from fuzzyclip.model.loaded import FuzzyCLIP
from tools.fuzz.kind import Kind
from tools.fuzz.kinds.tiny import make_model
from tools.fuzz.mutate import mutate_bytes, mutate_tree

PARAMS = {"map": "none", "mask": True, "threshold": 0.5, "tile": 32, "overlap": 8, "white": 255}
#: What an answer of a row must not tell: the server's folders.
SECRET = ("/tmp", "/home", "/root", "/dev/shm", "site-packages")


class Requests(Kind):
    """A request in a file of its own; what comes back must be an answer to each row."""

    def prepare(self, folder: Path) -> None:
        root = folder / "images"
        root.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (33, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "1.png")
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        self.files = [(root / "1.png").read_bytes(), stream.getvalue()]
        self.responder = Responder(FuzzyCLIP.load(make_model(folder), device="cpu"), None, root)

    def mutate(self, rng: random.Random, place: Path) -> None:
        image = rng.choice(self.files)
        if rng.random() < 0.3:
            image = mutate_bytes(rng, image)
        rows: Any = [{"image": base64.b64encode(image).decode(), "path": None, "category": "nut"}]
        if rng.random() < 0.3:
            rows.append({"image": None, "path": "1.png", "category": None})
        request: Any = {"rows": rows, "params": {k: PARAMS[k] for k in rng.sample([*PARAMS], 2)}}
        if rng.random() < 0.9:
            part = rng.choice(("rows", "rows", "params"))
            made = mutate_tree(rng, request[part])
            right = dict if part == "params" else list
            if isinstance(made, right) and all(isinstance(row, dict) for row in made or ()) | (
                right is dict
            ):
                request[part] = made  # MLflow's own schema refuses the others
        self.request = json.loads(json.dumps(request))
        (place / "request.json").write_text(json.dumps(request))

    def read(self, place: Path) -> Any:
        options = Options.read(self.request["params"])  # parsed by the server that we stand behind
        return self.responder.answer(self.request["rows"], options)

    def list_names(self, place: Path) -> list[str]:
        return ["params.", "params", "images", "rows"]

    def find_fault(self, place: Path, content: Any) -> str:
        """An answer a row, of finite numbers or an error that tells no folder of the server."""
        if len(content) != len(self.request["rows"]):
            return f"{len(content)} answers to {len(self.request['rows'])} rows"
        for answer in content:
            json.dumps(answer, allow_nan=False)
            if tuple(answer) != OUTPUTS:
                return f"other keys: {[*answer]}"
            if (answer["error"] is None) == (answer["decision"] is None):
                return f"neither or both of decision and error: {answer['error']}"
            if answer["error"] and any(word in answer["error"] for word in SECRET):
                return f"tells a folder: {answer['error']}"
            if answer["error"] is None and not math.isfinite(answer["image_score"]):
                return "a score that is no number"
        return ""
