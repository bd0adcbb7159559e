"""Requests at once: each has its turn in order, or is refused at once and in words."""

import threading
import time

import mlflow
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from properties import try_examples
from serving_cases import GOOD

from fuzzyclip.deploy.request import Limits, Options
from fuzzyclip.deploy.serving import Responder
from fuzzyclip.deploy.turns import BusyError, Turns


def start(work, *arguments):
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@given(st.integers(0, 4), st.integers(1, 8))
@try_examples(30)
def test_one_at_a_time_in_the_order_of_asking_and_no_more_than_may_wait(waiting, asked):
    turns, let, refused, order = Turns(waiting), threading.Event(), [], []

    def ask(number):
        try:
            with turns.enter(), turns.take(turns.now() + 10):
                order.append(number)
                let.wait(10)
        except BusyError as error:
            refused.append(str(error))

    threads = []
    for number in range(asked):
        threads.append(start(ask, number))
        wait_until(lambda: len(turns._queue) + len(refused) == len(threads))
    assert order == [0]
    let.set()
    for thread in threads:
        thread.join(10)
    assert order == [*range(min(asked, waiting + 1))]
    assert len(refused) == max(0, asked - waiting - 1)
    assert all("requests wait already; send it again" in words for words in refused)
    with turns.enter(), turns.take(turns.now() + 1):
        pass


def test_who_waits_too_long_is_sent_away_and_holds_up_nobody():
    turns, let = Turns(9), threading.Event()

    def hold():
        with turns.take(turns.now() + 10):
            let.wait(10)

    holder = start(hold)
    wait_until(lambda: len(turns._queue) == 1)
    begin = time.monotonic()
    with pytest.raises(BusyError, match="not come in time"), turns.take(turns.now() + 0.05):
        pass
    assert 0.04 < time.monotonic() - begin < 5
    let.set()
    holder.join(10)
    with turns.take(turns.now() + 1):
        pass
    with pytest.raises(BusyError), turns.take(turns.now() - 1):  # free, but too late
        pass


class Clock:
    """A clock that a test puts forward."""

    time = 0.0

    def __call__(self):
        return self.time


def test_images_after_the_time_of_a_request_say_so(detector, monkeypatch):
    responder, clock = Responder(detector, Limits(seconds=10)), Clock()
    responder._turns = Turns(0, clock)
    detect = responder._detect

    def detect_slowly(*given):
        clock.time += 6
        return detect(*given)

    monkeypatch.setattr(responder, "_detect", detect_slowly)
    rows = [{"image": GOOD, "category": "gear"}] * 4
    answers = responder.answer(rows, Options())
    assert [bool(answer["error"]) for answer in answers] == [False, False, True, True]
    assert "not come in time" in answers[2]["error"]
    assert answers[0] == answers[1] == Responder(detector).answer(rows[:1], Options())[0]


def test_a_request_too_many_is_told_to_come_again(model, monkeypatch):
    monkeypatch.setenv("FUZZYCLIP_MAX_WAITING", "0")
    monkeypatch.setenv("FUZZYCLIP_DEVICE", "cpu")
    loaded = mlflow.pyfunc.load_model(str(model))
    responder = loaded.unwrap_python_model().responder
    sent = pd.DataFrame({"image": [GOOD], "category": ["gear"]})
    with responder._turns.enter(), pytest.raises(MlflowException, match="is busy") as caught:
        loaded.predict(sent)
    assert caught.value.get_http_status_code() == 503
    assert loaded.predict(sent)["error"][0] is None
