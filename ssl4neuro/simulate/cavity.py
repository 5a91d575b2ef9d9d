"""A hypothalamic hamartoma and the cavity that its operation leaves: from the vertex along the midline to the hypothalamus."""

import numpy as np
from jaxtyping import Bool, Float

HYPOTHALAMUS = np.array([0.0, -4.0, -12.0])  # MNI, mm
VERTEX = np.array([0.0, 12.0, 68.0])
SHIFT = 4.0  # mm, sd of a subject's way in, across
HAMARTOMA = (6.0, 9.0)  # mm, smallest and largest radius
CORRIDOR = (6.0, 9.0)  # mm
MARGIN = 3.0  # mm that the operation takes around the hamartoma
REST = 0.1  # of a map's values in the cavity: partial volume, for there is no tissue

Mask = Bool[np.ndarray, "voxels"]


def draw_lesion(rng: np.random.Generator, xyz: Float[np.ndarray, "voxels 3"]) -> tuple[Mask, Mask]:
    """Hamartoma (before) and cavity (after the operation) of one subject; each has at least the voxel nearest its centre.

    Args:
        xyz: voxel coordinates, mm.
    """
    radius, width = rng.uniform(*HAMARTOMA), rng.uniform(*CORRIDOR)
    entry = VERTEX + np.append(SHIFT * rng.standard_normal(2), 0.0)
    base = HYPOTHALAMUS + np.append(rng.standard_normal(2), 0.0)
    distance = np.linalg.norm(xyz - base, axis=1)
    hamartoma = (distance <= radius) | (distance == distance.min())
    along = np.clip((xyz - base) @ (entry - base) / ((entry - base) @ (entry - base)), 0, 1)
    aside = np.linalg.norm(xyz - base - along[:, None] * (entry - base), axis=1)
    return hamartoma, hamartoma | (distance <= radius + MARGIN) | (aside <= width)
