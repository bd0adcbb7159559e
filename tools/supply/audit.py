"""`make audit`: known vulnerabilities of the pinned packages, as pip-audit learns of them.

    .trust/bin/python -m tools.supply.audit constraints.txt

pip-audit alone ends with 0 where a package could not be looked up, and with a traceback where there
is no network. Here a package that nobody answered for is no good news: the command ends with 2.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VULNERABLE, NOT_ASKED = 1, 2  # exit codes
MAX_SHOWN = 10
#: What libraries call it where nobody answers.
NO_NETWORK = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError",
              "Name or service not known", "ServiceError", "HTTPError")  # fmt: skip


def ask(pins: Path, options: Sequence[str] = ()) -> tuple[str, str]:
    """What pip-audit prints of a file of pins, as JSON, and what it says besides.

    The pins are the whole set, so that nothing is resolved or installed for it.
    """
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps",
        "--disable-pip", "--format", "json", "--progress-spinner", "off", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, done.stderr


def judge(pins: Path, output: str, remarks: str) -> tuple[int, list[str]]:
    """An exit code and lines on what pip-audit answered: 0 where all are known to be without fault.

    Args:
        output, remarks: what it printed, as `ask` gives it.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (remarks.strip().splitlines() or ["no word why"])[-1]
        if any(word in remarks for word in NO_NETWORK):
            return NOT_ASKED, [
                f"no network: pip-audit asks pypi.org (or, by --service osv, osv.dev) and got no "
                f"answer; nothing of {pins} was audited. Run it where that is reachable",
                f"({reason})",
            ]
        return NOT_ASKED, [f"pip-audit failed: {reason}"]
    lines, faults = [], 0
    for package in packages:
        for fault in package.get("vulns", []):
            faults += 1
            mended = ", ".join(fault.get("fix_versions", [])) or "no version yet"
            also = ", ".join(fault.get("aliases", []))
            named = f"{fault['id']}{f' ({also})' if also else ''}"
            lines.append(f"{package['name']} {package['version']}: {named}; mended in {mended}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    audited = len(packages) - len(skipped)
    lines.append(f"{audited} of {len(packages)} packages audited, {faults} known vulnerabilities")
    if skipped or not packages:
        shown = ", ".join(skipped[:MAX_SHOWN]) + (", ..." if len(skipped) > MAX_SHOWN else "")
        lines.append(
            f"not audited: {len(skipped)} that the index has no word on ({shown or 'none named'}). "
            "A mirror may leave this out: run it where pypi.org itself answers, or osv.dev with "
            "--service osv"
        )
    code = VULNERABLE if faults else NOT_ASKED if skipped or not packages else 0
    return code, lines


def main(pins: Path, options: Sequence[str] = ()) -> int:
    """Ask, and print what is known."""
    code, lines = judge(pins, *ask(pins, options))
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
