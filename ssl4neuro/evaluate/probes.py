"""Table of probes by name."""

from ssl4neuro.evaluate.attention import AttentionProbe
from ssl4neuro.evaluate.knn import KnnProbe, knn_score
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.protocol import Probe, Scores
from ssl4neuro.evaluate.template import TemplateProbe

PROBES: dict[str, type] = {"linear": LinearProbe, "knn": KnnProbe, "template": TemplateProbe, "attention": AttentionProbe}

__all__ = ["PROBES", "AttentionProbe", "KnnProbe", "LinearProbe", "Probe", "Scores", "TemplateProbe", "knn_score"]
