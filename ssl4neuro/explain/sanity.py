"""Does an explanation depend on what was learned? The same maps from a network with new weights (Adebayo et al., NeurIPS 2018).

A map that looks alike with random weights shows the input (its edges, its bright voxels), not the model.
"""

import copy
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
ALIKE = 0.9  # rank correlation from which an explanation is taken not to depend on the training


def reinitialise(module: Module, seed: int, depth: float = 1.0) -> Module:
    """A copy with new random weights from the top down: all of it, or the last `depth` (0 to 1) of its layers.

    Layers are the submodules with parameters of their own, in the order of their definition, which in our encoders is that of
    use. Those that know how (`reset_parameters`) draw as torch does at their construction; scales of other normalisations
    become 1 and shifts 0; any other parameter is drawn from a normal distribution with its present standard deviation.
    Drawn on the CPU: the same on every device.
    """
    device = next(module.parameters()).device
    fresh = copy.deepcopy(module).cpu()
    layers = [part for part in fresh.modules() if next(part.parameters(recurse=False), None) is not None]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in layers[len(layers) - round(depth * len(layers)) :]:
            _draw(layer)
    return fresh.to(device)


def _draw(layer: nn.Module) -> None:
    if callable(getattr(layer, "reset_parameters", None)):
        layer.reset_parameters()  # type: ignore[operator]
        return
    own = dict(layer.named_parameters(recurse=False))
    norm = set(own) <= {"weight", "bias"} and all(parameter.ndim == 1 for parameter in own.values())
    for name, parameter in own.items():
        if norm:
            parameter.fill_(1.0 if name == "weight" else 0.0)
        else:
            spread = float(parameter.float().std(correction=0)) or 1.0
            parameter.copy_(torch.randn(parameter.shape).to(parameter) * spread)


def rank_correlation(a: Float[np.ndarray, "rows values"], b: Float[np.ndarray, "rows values"]) -> Float[np.ndarray, "rows"]:
    """Spearman's correlation of each row of `a` with the same of `b`, over values finite in both; NaN where one is constant."""
    return np.array([_spearman(x, y) for x, y in zip(a, b, strict=True)])


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3:
        return float("nan")
    p, q = (rankdata(values[both]) for values in (x, y))
    p, q = p - p.mean(), q - q.mean()
    size = np.sqrt((p @ p) * (q @ q))
    return float(p @ q / size) if size > 0 else float("nan")
