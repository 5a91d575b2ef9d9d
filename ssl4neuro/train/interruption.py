"""Ctrl-C and a cluster's SIGTERM: end after the current step, with everything saved."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The user or the cluster asked to stop; everything is saved."""


class StopRequest:
    """While active, the first signal only sets `asked`; a second Ctrl-C ends at once.

    One within another knows what the outer one was asked, and tells it when it ends: a study stops also when the signal came
    between two of its parts, or in the last step of one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread, where signals cannot be handled
                break
        self.asked = any(outer.asked for outer in self._outer())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        for outer in self._outer():
            outer.asked = outer.asked or self.asked

    def _outer(self) -> "list[StopRequest]":
        owners = [getattr(handler, "__self__", None) for handler in self._old.values()]
        return [owner for owner in owners if isinstance(owner, StopRequest)]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
