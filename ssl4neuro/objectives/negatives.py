"""Which samples are negatives of which, and the error for a batch that has none."""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ssl4neuro.objectives.samples import GROUP, SUBJECT, UNIT, Level, Samples
from ssl4neuro.objectives.similarity import Selection

Negatives = Literal["other_subjects", "other_sessions", "same_session", "all"]


ADVICE = "raise sampling.batch_size, or let the objective take more samples as negatives (`negatives`, `same_subject`)"


class NoNegatives(ValueError):
    """Nothing in the batch to compare with, in any process; every process raises it for the same batch.

    Attributes:
        rows: rows of the cohort that took part, of all processes.
        reason: why they cannot be told apart, for the user.
        advice: what the user can do.
    """

    def __init__(self, rows: tuple[int, ...], reason: str, advice: str = ADVICE) -> None:
        super().__init__(f"{reason} (rows {', '.join(map(str, rows[:8]))}{', …' if len(rows) > 8 else ''})")
        self.rows = rows
        self.reason = reason
        self.advice = advice


REASONS = {
    "other_subjects": "the batch holds one subject, and samples of one subject are no negatives",
    "other_sessions": "the batch holds one session, and samples of one session are no negatives",
    "same_session": "no session has two samples in the batch, and negatives come from the same session",
    "all": "the batch holds one sample",
}


def check_negatives(negatives: Negatives, level: Level) -> None:
    """Raises ValueError for a choice that leaves no negative in any batch."""
    if level == "session" and negatives == "same_session":
        raise ValueError("negatives: same_session leaves none when whole sessions are compared")


def select_negatives(codes: Int[Tensor, "total codes"], mine: slice, negatives: Negatives, copies: int = 1) -> Selection:
    """Negatives of this process's samples among everybody's, `copies` views of each (view by view) on both sides.

    A sample is never a negative of itself, of another view of itself, nor of a copy of the same row in the batch.
    """
    if negatives == "all" and len(torch.unique(codes[:, UNIT])) == len(codes):
        # No row twice: positions are enough, and cheaper than comparing codes.
        position = torch.arange(len(codes), device=codes.device)[mine]
        skip = torch.stack([position + copy * len(codes) for copy in range(copies)], dim=1)
        return Selection(skip=skip.repeat(copies, 1))
    column = {"other_subjects": SUBJECT, "other_sessions": GROUP}.get(negatives, UNIT)
    differ = (codes[mine, column].repeat(copies), codes[:, column].repeat(copies))
    agree = (codes[mine, GROUP].repeat(copies), codes[:, GROUP].repeat(copies))
    return Selection(differ=(differ,), agree=(agree,) if negatives == "same_session" else ())


def no_negatives(samples: Samples, negatives: Negatives, modalities: tuple[str, ...]) -> NoNegatives:
    """The error to raise."""
    if len(samples.codes) == 0:
        return NoNegatives((), f"no sample of the batch has {' and '.join(modalities)}")
    return NoNegatives(samples.rows, REASONS[negatives])
