"""`python -m worldwire.viewer.guarded VERB ...`: `worldwire VERB ...` that ends when its standard input does.

The viewer starts its server this way and keeps the other end of the pipe: however the viewer ends, even
killed, the operating system closes the pipe, and no server is left behind.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

from worldwire.cli import main

STDIN: Final = 0


def end_with_stdin() -> None:
    """From now on, the end of standard input counts as SIGTERM."""

    def watch() -> None:
        while os.read(STDIN, 4096):  # not sys.stdin: its lock would trouble the interpreter's end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="worldwire-guard", daemon=True).start()


if __name__ == "__main__":
    end_with_stdin()
    raise SystemExit(main())
