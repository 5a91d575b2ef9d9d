"""What an encoder looks at: Eigen-CAM, occlusion by part, and the check against random weights. Tensors in, tensors out.

`ssl4neuro.evaluate.explain` runs them over the held-out subjects of a cohort.
"""

from ssl4neuro.explain.bands import EDGES, band_edges, holds_band, without_band
from ssl4neuro.explain.eigencam import Cam, eigen_cam, feature_map
from ssl4neuro.explain.occlusion import dissimilarity, drop, occlusion, patches, regions, without_patch, without_phase
from ssl4neuro.explain.sanity import ALIKE, rank_correlation, reinitialise

__all__ = [
    "ALIKE",
    "EDGES",
    "Cam",
    "band_edges",
    "dissimilarity",
    "drop",
    "eigen_cam",
    "feature_map",
    "holds_band",
    "occlusion",
    "patches",
    "rank_correlation",
    "regions",
    "reinitialise",
    "without_band",
    "without_patch",
    "without_phase",
]
