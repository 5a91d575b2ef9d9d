"""The brain grid, five networks at canonical MNI places, and what a state does to them (methods/network_state.md §7)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ssl4neuro.errors import UserError


@dataclass(frozen=True)
class Node:
    """One Gaussian blob of a network, at MNI coordinates in mm (x grows to the right)."""

    x: int
    y: int
    z: int
    amplitude: float = 1.0
    sigma: float = 9.0  # mm


# The first node of each network is the part that the state changes.
NETWORKS: dict[str, tuple[Node, ...]] = {
    "motor": (Node(-38, -24, 56), Node(38, -24, 56), Node(0, -6, 60, 0.8)),
    "vision": (Node(0, -84, 4), Node(-32, -86, 8, 0.9), Node(32, -86, 8, 0.9)),
    "language": (Node(-50, 18, 14), Node(-56, -42, 10), Node(-44, -62, 30, 0.8), Node(54, -40, 8, 0.4)),
    "frontal": (Node(0, 50, 14), Node(-38, 40, 26, 0.9), Node(38, 40, 26, 0.9)),
    "temporal": (Node(-54, -6, -20), Node(54, -6, -20), Node(-26, -18, -14, 0.7), Node(26, -18, -14, 0.7)),
}
MAX_NODES = max(len(nodes) for nodes in NETWORKS.values())


@dataclass(frozen=True)
class Brain:
    """nilearn's bundled MNI152 brain on an isotropic grid. Maps are the in-mask voxels, in C order of `mask`."""

    mask: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    resolution: float  # mm

    def coordinates(self) -> Float[np.ndarray, "voxels 3"]:
        """MNI coordinates of the in-mask voxels, mm."""
        return np.argwhere(self.mask) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def volume(self, values: Shaped[np.ndarray, "*maps voxels"]) -> Shaped[np.ndarray, "*maps x y z"]:
        """Put in-mask values on the grid, 0 outside."""
        grid = np.zeros((*values.shape[:-1], *self.mask.shape), dtype=values.dtype)
        grid[..., self.mask] = values
        return grid


def load_brain(resolution: float) -> Brain:
    """The MNI152 brain mask at `resolution` mm (2 to 10, whole numbers: nilearn bundles no others); no network access.

    Raises:
        UserError: a resolution at which the networks could not be told apart, or that no machine would finish.
    """
    if not 2 <= resolution <= 10 or resolution != int(resolution):
        raise UserError(f"resolution {resolution:g}: the simulation takes a whole number from 2 to 10 mm; 8 is the default")
    from nilearn.datasets import load_mni152_brain_mask

    image = load_mni152_brain_mask(resolution=int(resolution))
    return Brain(np.asarray(image.dataobj) > 0, np.asarray(image.affine, dtype=np.float64), float(resolution))


def network_map(
    xyz: Float[np.ndarray, "voxels 3"],
    network: str,
    gain: Float[np.ndarray, "nodes"] | None = None,
    shift: Float[np.ndarray, "3"] | None = None,
    change: float = 0.0,
    widening: float = 0.0,
    blur: float = 0.0,
) -> Float[np.ndarray, "voxels"]:
    """A network's map: the sum of its nodes, 1 at the peak of a node of amplitude 1.

    Args:
        xyz: voxel coordinates, mm.
        network: a key of `NETWORKS`.
        gain: factor of each node's amplitude (individual anatomy); further entries are ignored.
        shift: displacement of the whole network, mm.
        change: relative change of the first node's amplitude (the state).
        widening: relative change of the first node's width (the state).
        blur: sd of random shifts along each axis, mm: the mean map of many people, whose networks do not lie at one place.
    """
    nodes = NETWORKS[network]
    total = np.zeros(len(xyz))
    for k, node in enumerate(nodes):
        centre = np.array([node.x, node.y, node.z]) + (0.0 if shift is None else shift)
        amplitude = node.amplitude * (1.0 if gain is None else gain[k]) * (1.0 + change if k == 0 else 1.0)
        sigma = node.sigma * (1.0 + widening if k == 0 else 1.0)
        blurred = np.sqrt(sigma**2 + blur**2)
        amplitude, sigma = amplitude * (sigma / blurred) ** 3, blurred
        total += amplitude * np.exp(-((xyz - centre) ** 2).sum(axis=1) / (2 * sigma**2))
    return total


def rim(brain: Brain) -> Float[np.ndarray, "voxels"]:
    """Motion's signature: the outermost layer of the brain, standardised over the mask."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(brain.mask, 1))[1:-1, 1:-1, 1:-1][brain.mask] * brain.resolution  # mm
    edge = np.exp(-depth / 8.0)
    return (edge - edge.mean()) / edge.std()
