"""BioVidNet: latent biomarker trajectories from videos, motion and rhythm apart (methods/biovidnet.md)."""

from ssl4neuro.heads.biovidnet.context import ContextEncoder
from ssl4neuro.heads.biovidnet.losses import UNSUPERVISED, LossWeights, TrajectoryLosses
from ssl4neuro.heads.biovidnet.network import PRESETS, BioVidNet, BioVidNetConfig, SequenceHead, Stream, Trajectory
from ssl4neuro.heads.biovidnet.preprocess import PreprocessConfig, preprocess

__all__ = [
    "PRESETS",
    "UNSUPERVISED",
    "BioVidNet",
    "BioVidNetConfig",
    "ContextEncoder",
    "LossWeights",
    "PreprocessConfig",
    "SequenceHead",
    "Stream",
    "Trajectory",
    "TrajectoryLosses",
    "preprocess",
]
