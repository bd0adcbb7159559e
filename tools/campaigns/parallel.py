"""Right and wrong requests at once: every right one gets the answer that it gets alone."""

import base64
import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.campaigns.kills import CLI
from tools.campaigns.project import MODEL, PARTS, CampaignError, Project, make_project
from tools.campaigns.server import start_server

#: Requests at a time.
TOGETHER = 8
CATEGORY = "metal plate"


def send_all(folder: Path, count: int, seed: int) -> Iterator[list[str]]:
    """Send `count` requests, half of them wrong, several at a time; for each, the faults."""
    project, draw = make_project(folder), random.Random(seed)
    images = sorted((project.folder / PARTS).rglob("*.png"))[:4]
    with serve(project) as address:
        wanted = {image: ask(address, make_right(image)) for image in images}
        if broken := [answer for code, answer in wanted.values() if code != 200]:
            raise CampaignError(f"a right request fails alone: {broken[0]:.1000}")
        jobs = [(draw.choice(images), draw.random() < 0.5, draw.random()) for _ in range(count)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            answers = pool.map(lambda job: judge(address, wanted, *job), jobs)
            yield from answers
        after = {image: ask(address, make_right(image)) for image in images}
    yield [] if after == wanted else ["the server's answers are others than before"]


def judge(
    address: str, wanted: Mapping[Path, Any], image: Path, right: bool, chance: float
) -> list[str]:
    """Send one request; what is wrong with its answer."""
    body = make_right(image) if right else make_wrong(image, chance)
    code, text = ask(address, body)
    if right:
        busy = code in (429, 503)  # told so, and asked again by a client
        while busy:
            code, text = ask(address, body)
            busy = code in (429, 503)
        same = (code, text) == wanted[image]
        return [] if same else [f"{image.name}: another answer: {code} {text:.300}"]
    if code == 200:
        answers = json.loads(text)["predictions"]
        taken = [answer for answer in answers if not answer["error"]]
        return [f"{body[:200]!r} is answered: {taken[0]}"] if taken else []
    fault = (code >= 500 and code != 503) or "Traceback" in text
    return [f"{body[:200]!r}: {code} {text:.500}"] if fault else []


def make_right(image: Path) -> bytes:
    """A request for one image."""
    row = {"image": base64.b64encode(image.read_bytes()).decode(), "category": CATEGORY}
    return json.dumps({"dataframe_records": [row]}).encode()


def make_wrong(image: Path, chance: float) -> bytes:
    """One of the mistakes that clients and attackers make."""
    content = image.read_bytes()
    row = {"image": base64.b64encode(content).decode(), "category": CATEGORY}

    def pack(**changes: Any) -> bytes:
        return json.dumps({"dataframe_records": [row | changes]}).encode()

    def with_params(**params: Any) -> bytes:
        return json.dumps({"dataframe_records": [row], "params": params}).encode()

    mistakes = [
        b"", b"{", b"[]", b"\xff\xfe", b'{"dataframe_records": []}', b'{"instances": 5}',
        pack(image=base64.b64encode(content[: len(content) // 2]).decode()),
        pack(image="not base64 at all"), pack(image=""), pack(image=None), pack(image=[1, 2]),
        pack(path="../../etc/passwd"), pack(image=None, path="/etc/passwd"),
        pack(category="x" * 10_000), pack(category="a\nb"), pack(category=5),
        pack(image=base64.b64encode(make_liar(13_377)).decode()),
        with_params(tile=1), with_params(threshold="high"), with_params(overlap=-1),
        with_params(score="best"), with_params(white=0),
    ]  # fmt: skip
    return mistakes[int(chance * len(mistakes))]


def make_liar(side: int) -> bytes:
    """The begin of a JPEG whose header promises a square of any side."""
    size = side.to_bytes(2, "big")
    table = b"\xff\xdb\x00\x43\x00" + b"\x01" * 64
    frame = b"\xff\xc0\x00\x0b\x08" + size + size + b"\x01\x01\x11\x00"
    return b"\xff\xd8" + table + frame + b"\xff\xd9"


def ask(address: str, body: bytes) -> tuple[int, str]:
    """Status and text of the answer to a request."""
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@contextmanager
def serve(project: Project) -> Iterator[str]:
    """`mlflow models serve` of the project's model; its address."""
    served = project.folder / "out/served"
    project.run(*CLI, "export", "--model", MODEL, "--format", "mlflow", "--out", str(served))
    command = ["mlflow", "models", "serve", "-m", str(served), "--env-manager", "local"]
    with start_server(project, command, project.folder / "out/log", "ping") as (address, _):
        yield address
