"""A server that is asked for more than it can do says so at once, and its health at any time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image
from promises import promise_ended_jpeg
from servers import PATIENCE, start_server
from serving_cases import GOOD, encode, text

PART = {"image": GOOD, "category": "gear"}


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """A server with the usual limits but two, asked once so that it is warm."""
    variables = {"FUZZYCLIP_MAX_WAITING": "3", "FUZZYCLIP_MAX_SECONDS": "10"}
    with start_server(model, tmp_path_factory.mktemp("busy"), variables) as started:
        started.ask(PART)
        yield started


class Health:
    """The longest that the server's health took to be told, while the block ran."""

    def __init__(self, server):
        self.address, self.seconds, self.over = f"{server.address}/ping", [], threading.Event()
        self.asking = threading.Thread(target=self._ask)

    def _ask(self):
        while not self.over.is_set():
            begin = time.monotonic()
            assert requests.get(self.address, timeout=PATIENCE).status_code == 200
            self.seconds.append(time.monotonic() - begin)
            time.sleep(0.05)

    def __enter__(self):
        self.asking.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.asking.join()


def test_headers_that_promise_49_megapixels_cost_nothing(server):
    body = {"dataframe_records": [{"image": text(promise_ended_jpeg(7000)), "category": "gear"}]}
    begin = time.monotonic()
    with Health(server) as health, ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: server.post(body), range(5)))
    assert time.monotonic() - begin < 5
    for answer in answers:
        (row,) = answer.json()["predictions"]
        assert "7000 x 7000 pixels take at least" in row["error"]
    assert max(health.seconds) < 2


def test_too_many_requests_are_sent_away_at_once_and_the_others_answered(server):
    large = {"image": text(encode(Image.new("RGB", (2500, 2000)))), "category": "gear"}
    body = {"dataframe_records": [large], "params": {"map": "none"}}
    seconds = {}

    def ask(number):
        begin = time.monotonic()
        answer = server.post(body)
        seconds[number] = time.monotonic() - begin
        return answer

    with Health(server) as health, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    refused = [number for number, answer in enumerate(answers) if answer.status_code == 503]
    assert len(refused) >= 24 - 4 - 12  # what comes later may find a free place
    at_once = [number for number in refused if "is busy" in answers[number].text]
    assert all("not come in time" in answers[n].text for n in refused if n not in at_once)
    assert at_once
    assert max(seconds[number] for number in at_once) < 5
    done = [answer for answer in answers if answer.status_code == 200]
    assert len(done) + len(refused) == 24
    assert len(done) >= 1
    assert max(health.seconds) < 5
    assert server.ask(PART)[0]["error"] is None
