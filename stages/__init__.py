"""The DVC stages: each reads its declared parameters and files, calls the library, writes files."""

import signal
import sys


def _end_at_once() -> None:
    """Let Ctrl-C end a stage without a traceback while its modules load, for some seconds.

    From its work on `fuzzyclip.utils.endings` has words for it. Whoever imports a stage, or started
    it deaf to Ctrl-C, keeps what was.
    """
    started = sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith(f"{__name__}.")
    if started and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


_end_at_once()
