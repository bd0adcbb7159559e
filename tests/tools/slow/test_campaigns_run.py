"""A kill each of a stage and a prediction, and some permissions that are missing.

docs/reliability.md tells of many, by the same code.
"""

import os
import random
import shutil

import pytest
from pipelines import clone_repository, run

from tools.campaigns.kills import kill_target, list_targets
from tools.campaigns.permissions import CASES, POWERLESS, TOUCHED, try_case
from tools.campaigns.project import PARTS, kept_outputs, make_project, remove

#: A command a kind.
PLACES = [(f"{PARTS}/*.png", 0o000), ("out", 0o555), ("metrics", 0o555)]
TRIED = [next(case for case in CASES if (case.place, case.mode) == tried) for tried in PLACES]


@pytest.fixture(scope="module")
def project(pipeline, tmp_path_factory):
    """A finished checkout in place of the one that a campaign makes: it is as small."""
    source, folder = pipeline[0], tmp_path_factory.mktemp("hurt") / "project"
    clone_repository(source, folder, cache=False)
    run(folder, "dvc", "cache", "dir", "--local", run(source, "dvc", "cache", "dir").strip())
    # modes of a linked file would be those of the cache too, which other tests take from
    run(folder, "dvc", "config", "--local", "cache.type", "copy")
    run(folder, "dvc", "checkout")
    return make_project(folder)


@pytest.mark.parametrize("name", ["csp@visa", "predict"])
def test_a_killed_command_given_again_makes_the_same(project, name):
    target = list_targets()[name]
    assert [*kill_target(project, name, target, 1, random.Random(name))] == [[]]


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which(POWERLESS[0]), reason="needs util-linux' setpriv"
)
@pytest.mark.parametrize("case", TRIED, ids=[f"{case.place} {case.mode:o}" for case in TRIED])
def test_a_missing_permission_is_named_and_nothing_else_changes(project, case):
    with kept_outputs(project, *TOUCHED):
        assert try_case(project, case, POWERLESS if os.geteuid() == 0 else ()) == []
    remove(project.folder / "out")
