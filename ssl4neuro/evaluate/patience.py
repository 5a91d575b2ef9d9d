"""Permutations of probes that fit each column of labels anew: in small blocks, with the time left, and not for days unasked."""

import time
from collections.abc import Callable

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.protocol import Probe

LONGEST_S = 4 * 3600.0  # one model's permutations


class Patience:
    """How many permutations to run at once, and how long the others will take.

    A probe with an attribute `columns_at_once` is a slow one; the others are left alone.

    Args:
        name: of the model, for messages.
        permutations: how many there are to run.
        tell: shows a text, such as `Progress.advance(0, now=...)`.
    """

    def __init__(self, name: str, probe: Probe, permutations: int, tell: Callable[[str], None]) -> None:
        self.name, self.permutations, self.tell = name, permutations, tell
        self.block: int | None = getattr(probe, "columns_at_once", None)
        self.started, self.done = time.monotonic(), 0

    def at_once(self, most: int) -> int:
        """Columns of the next block."""
        return most if self.block is None else min(most, self.block)

    def advance(self, columns: int) -> None:
        """`columns` more are done.

        Raises:
            UserError: at this rate all of them would take longer than `LONGEST_S`.
        """
        if self.block is None:
            return
        self.done += columns
        each = (time.monotonic() - self.started) / self.done
        if each * self.permutations > LONGEST_S:
            hours, fewer = each * self.permutations / 3600, max(1, int(LONGEST_S / each))
            raise UserError(
                f"permutations: {self.permutations} of '{self.name}' would take about {hours:.0f} hours; use --permutations"
                f" {fewer} or fewer, or --probe linear or ridge, which permute quickly"
            )
        left = each * (self.permutations - self.done)
        self.tell(f"{self.name}: {self.done} of {self.permutations}, {left:.0f} s left")
