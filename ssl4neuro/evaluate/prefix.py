"""The first dimensions of an embedding alone: is a short vector as good (Kusupati et al., Matryoshka, NeurIPS 2022)?"""

from collections.abc import Sequence
from dataclasses import replace

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import Features, Pair, Rows


class PrefixFeatures:
    """The first `length` dimensions of other features."""

    def __init__(self, inner: Features, length: int) -> None:
        self.inner, self.length = inner, length

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Rows cut to their first dimensions; bags [units, samples, dim] too."""
        left, right = self.inner.fold(train, test)
        return left[..., : self.length], right[..., : self.length]


def with_prefixes(candidate: Candidate, lengths: Sequence[int], dim: int) -> list[Candidate]:
    """The candidate, and one named `NAME[:k]` for each length.

    Raises:
        UserError: a length below 1, or beyond the `dim` dimensions there are.
    """
    for length in lengths:
        if not 1 <= length <= dim:
            raise UserError(f"prefix: {length}: '{candidate.name}' has {dim} dimensions; give lengths from 1 to {dim}")
    cut = [
        replace(candidate, name=f"{candidate.name}[:{length}]", features=PrefixFeatures(candidate.features, length))
        for length in dict.fromkeys(lengths)
    ]
    return [candidate, *cut]
