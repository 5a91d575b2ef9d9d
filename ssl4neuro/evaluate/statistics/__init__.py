"""Statistics whose unit is the subject: intervals and p-values, one idea per file."""

from ssl4neuro.evaluate.statistics.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_weights,
    equivalence_p,
    expanded_tail,
)
from ssl4neuro.evaluate.statistics.delong import DeLong, delong, delong_interval, delong_p
from ssl4neuro.evaluate.statistics.joint import Exchange, joint_labels
from ssl4neuro.evaluate.statistics.max_statistic import max_statistic_p
from ssl4neuro.evaluate.statistics.paired import exchange_p
from ssl4neuro.evaluate.statistics.permutation import (
    Scheme,
    constant_within,
    p_value,
    permutation_scheme,
    permuted_labels,
)

__all__ = [
    "DeLong",
    "Exchange",
    "Interval",
    "Scheme",
    "bootstrap_interval",
    "bootstrap_weights",
    "constant_within",
    "delong",
    "delong_interval",
    "delong_p",
    "equivalence_p",
    "exchange_p",
    "expanded_tail",
    "joint_labels",
    "max_statistic_p",
    "p_value",
    "permutation_scheme",
    "permuted_labels",
]
