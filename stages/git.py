"""Git, as the stages ask it."""

import subprocess


def call_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Git's answer in this folder, whatever its exit code.

    It never locks the index: DVC, running beside, dies of that.
    """
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
