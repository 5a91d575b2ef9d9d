"""Statistics whose unit is the subject: intervals and p-values, one idea per file."""

from ssl4neuro.evaluate.statistics.bootstrap import Interval, bootstrap_interval, bootstrap_weights, expanded_tail
from ssl4neuro.evaluate.statistics.permutation import (
    Scheme,
    constant_within,
    p_value,
    permutation_scheme,
    permuted_labels,
)

__all__ = [
    "Interval",
    "Scheme",
    "bootstrap_interval",
    "bootstrap_weights",
    "constant_within",
    "expanded_tail",
    "p_value",
    "permutation_scheme",
    "permuted_labels",
]
