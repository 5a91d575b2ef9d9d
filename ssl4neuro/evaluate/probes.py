"""Table of probes by name."""

from ssl4neuro.evaluate.attention import AttentionProbe
from ssl4neuro.evaluate.knn import KnnProbe, knn_score
from ssl4neuro.evaluate.linear import LinearProbe, RidgeProbe
from ssl4neuro.evaluate.mlp import MlpProbe
from ssl4neuro.evaluate.protocol import Probe, Scores
from ssl4neuro.evaluate.svm import SvmProbe
from ssl4neuro.evaluate.template import TemplateProbe

PROBES: dict[str, type] = {
    "linear": LinearProbe,
    "ridge": RidgeProbe,
    "svm": SvmProbe,
    "knn": KnnProbe,
    "mlp": MlpProbe,
    "attention": AttentionProbe,
    "template": TemplateProbe,
}

__all__ = [
    "PROBES",
    "AttentionProbe",
    "KnnProbe",
    "LinearProbe",
    "MlpProbe",
    "Probe",
    "RidgeProbe",
    "Scores",
    "SvmProbe",
    "TemplateProbe",
    "knn_score",
]
