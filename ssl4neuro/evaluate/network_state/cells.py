"""Held-out scores of one model and one network, one line per scan, all repeats side by side."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import expit, logit

from ssl4neuro.evaluate.network_state.items import SCAN

EDGE = 1e-6  # probabilities of 0 and 1 have no logit


@dataclass(frozen=True)
class Cells:
    """A cell is a network of a scan; its calibrated logit is the mean over its components."""

    scans: pd.DataFrame  # subject, session, run, state, site
    subject: Int[np.ndarray, "cells"]  # code
    y: Int[np.ndarray, "cells"]  # 1 for the later state
    logit: Float[np.ndarray, "cells repeats"]
    fold: Int[np.ndarray, "cells repeats"]  # in which it was held out

    @property
    def probability(self) -> Float[np.ndarray, "cells repeats"]:
        """Of the later state."""
        return expit(self.logit)

    @property
    def folds(self) -> int:
        """Number of outer folds."""
        return int(max(len(np.unique(column)) for column in self.fold.T))


def make_cells(scores: pd.DataFrame, after: str) -> Cells:
    """Cells of the lines of one model and one network.

    Args:
        after: the later state.
    """
    lines = scores.assign(value=logit(scores["probability"].to_numpy(dtype=np.float64).clip(EDGE, 1 - EDGE)))
    keys = [*SCAN, "state", "site"]
    means = lines.groupby([*keys, "repeat"], as_index=False).agg(value=("value", "mean"), fold=("fold", "first"))
    wide = means.pivot(index=keys, columns="repeat", values=["value", "fold"])
    scans = wide.index.to_frame(index=False)
    return Cells(
        scans,
        pd.factorize(scans["subject"], sort=True)[0].astype(np.int64),
        (scans["state"] == after).to_numpy().astype(np.int64),
        wide["value"].to_numpy(dtype=np.float64),
        wide["fold"].to_numpy(dtype=np.int64),
    )
