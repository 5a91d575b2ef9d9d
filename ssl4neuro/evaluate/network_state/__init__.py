"""The network-state study: stage two inside every outer fold, and what its held-out scores say (network_state.md §5, §6)."""

from ssl4neuro.evaluate.network_state.fold import FoldScores, InnerSplit, StageTwo, score_encoder, score_fold
from ssl4neuro.evaluate.network_state.items import study_items
from ssl4neuro.evaluate.network_state.study import Study, pool, read_fold, write_fold
from ssl4neuro.evaluate.network_state.write import render_study, write_study

__all__ = [
    "FoldScores",
    "InnerSplit",
    "StageTwo",
    "Study",
    "pool",
    "read_fold",
    "render_study",
    "score_encoder",
    "score_fold",
    "study_items",
    "write_fold",
    "write_study",
]
