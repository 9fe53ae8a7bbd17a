"""SIGTERM and Ctrl-C: what is under way is saved first, then the process ends.

Outside `deferred` a signal raises at once. Within it, the code asks `asked()` where its state is
whole, saves it, and raises. A second signal does not wait any longer.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The process was told to stop.

    Attributes:
        signal: its number; the exit status is 128 more.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = number


_pending: list[int] = []
_deferring = 0


def _handle(number: int, frame: FrameType | None) -> None:
    if _deferring and not _pending:
        _pending.append(number)
        return
    raise Interrupted(number)


@contextlib.contextmanager
def graceful() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT are handled as above (in a process' main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, _handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _pending.clear()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block a signal waits until `asked` is looked at, at the latest until its end."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1
    if not _deferring and (stop := asked()):
        raise stop


def asked() -> Interrupted | None:
    """What to raise once the state is saved; None where nobody asked to stop."""
    return Interrupted(_pending[0]) if _pending else None
