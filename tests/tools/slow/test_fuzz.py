"""Some mutated inputs of each kind, other ones than the campaigns of docs/reliability.md try."""

import pytest

from tools.fuzz.campaign import run_campaign
from tools.fuzz.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_breaks_its_reader_or_is_taken_for_another(kind):
    tally = run_campaign(kind, range(300), seed=1)
    assert tally.counts.total() == 300
    assert tally.counts["refused"] > 30
    assert tally.counts["accepted"] > 0
    assert not tally.findings
