"""Features of the rows that train stage two and of those that it scores, with what both need to know of them."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import expit

from ssl4neuro.evaluate.features import Features, Rows


class Part(NamedTuple):
    """One division of items: an inner split, or the outer fold."""

    train: Float[np.ndarray, "train dim"]
    test: Float[np.ndarray, "test dim"]
    y: Int[np.ndarray, "train"]
    y_test: Int[np.ndarray, "test"]
    network: Int[np.ndarray, "train"]  # code, by sorted name
    network_test: Int[np.ndarray, "test"]
    cell_test: Int[np.ndarray, "test"]  # code of scan and network: components of a cell are averaged
    embedded: int  # leading columns that come from the embedding


def make_part(items: pd.DataFrame, features: Features, train: Rows, test: Rows, embedded: int = 0) -> Part:
    """Read the features of a division; `features.fold` fits on the training rows alone."""
    x, x_test = features.fold(train, test)
    y = items["y"].to_numpy(dtype=np.int64)
    network = pd.factorize(items["network"], sort=True)[0].astype(np.int64)
    cell = cell_codes(items)
    return Part(x, x_test, y[train], y[test], network[train], network[test], cell[test], embedded)


def cell_codes(items: pd.DataFrame) -> Int[np.ndarray, "items"]:
    """A code per scan and network."""
    return items.groupby(["subject", "session", "run", "network"], sort=False).ngroup().to_numpy(dtype=np.int64)


def cell_loss(part: Part, logit: Float[np.ndarray, "test"]) -> float:
    """Mean cross-entropy of cells, whose logit is the mean over their components; logits of scale 1, uncalibrated."""
    cells = pd.DataFrame({"cell": part.cell_test, "y": part.y_test, "logit": logit}).groupby("cell").mean()
    z, y = cells["logit"].to_numpy(), cells["y"].to_numpy()
    return float((np.logaddexp(0, z) - y * z).mean())


def probability(logit: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Of the later state."""
    return expit(logit)
