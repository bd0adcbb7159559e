"""The answer of one check."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

#: `warn`: something optional is missing, or should be known; `fail`: something will not work.
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it, short.
        status: see `Status`.
        found: what there is, one line.
        advice: what to do, one line; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


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
    found = {check.status for check in checks}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"
