"""All checks of what works in this installation, with advice; they never download."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fuzzyclip.health.data import check_data
from fuzzyclip.health.installation import (
    Check,
    Status,
    check_device,
    check_disk,
    check_folder,
    check_packages,
    check_pipeline,
)
from fuzzyclip.health.models import (
    check_cached_weights,
    check_model,
    check_sample_weights,
    run_sample,
)

#: Where the pipeline puts datasets.
RAW = Path("data/raw")


def examine(
    model: Path | None = None,
    data: Path | None = None,
    verify_key: Path | None = None,
    signature: Path | None = None,
) -> list[Check]:
    """Answers on everything; needs neither network nor checkout, and raises nothing.

    Args:
        model: a trained model's directory; None looks at none.
        data: folder of datasets, each in one named by its id; None takes the pipeline's, if there.
        verify_key: public key whose owner must have signed the model; None asks for no signature.
        signature: its file, where it does not lie in the model's directory.
    """
    here = Path.cwd()
    checks = run_check("packages", check_packages)
    checks += run_check("device", check_device)
    checks += run_check("sample CLIP", check_sample_weights)
    checks += run_check("test run", run_sample)
    checks += run_check("weights", check_cached_weights)
    if model is not None:
        checks += run_check("model", lambda: check_model(model, verify_key, signature))
    place = data or (RAW if RAW.is_dir() else None)
    checks += run_check("data", lambda: _check_data_and_disk(place, here))
    checks += run_check("folder", lambda: check_folder(here))
    checks += run_check("pipeline", lambda: check_pipeline(here))
    return checks


def _check_data_and_disk(data: Path | None, here: Path) -> list[Check]:
    """Checks of the datasets, and of the room for their features."""
    checks, images = check_data(data) if data else ([], 0)
    return [*checks, *check_disk(here, images)]


def run_check(name: str, check: Callable[[], Sequence[Check]]) -> list[Check]:
    """The answers of a check; one that breaks is an answer too."""
    try:
        return list(check())
    except Exception as error:  # a broken package may raise anything when it is imported
        lines = str(error).strip().splitlines() or [""]
        advice = "install again into a fresh environment; if that does not help, report it"
        return [Check(name, "fail", f"{type(error).__name__}: {lines[0]}", advice)]


def judge(checks: Sequence[Check]) -> Status:
    """The worst status among checks."""
    statuses = {check.status for check in checks}
    return "fail" if "fail" in statuses else "warn" if "warn" in statuses else "ok"
