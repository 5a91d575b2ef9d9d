"""What is watched while training: collapse, alignment and uniformity, retrieval, and a kNN probe, on validation subjects.

Effective rank: Garrido et al., RankMe, ICML 2023. Alignment and uniformity: Wang & Isola, ICML 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class MonitorConfig:
    """What steers early stopping and the choice of the best checkpoint."""

    every: int = 1  # epochs between validations
    signal: Literal["loss", "retrieval", "knn", "dice"] = "loss"  # on validation subjects; `knn` needs `label`; `dice`: heads
    label: str | None = None  # label column of the online kNN probe
    patience: int | None = 20  # validations without improvement before stopping; null never stops early
    min_delta: float = 0.0
    neighbours: int = 10
    rows: int = 2000  # at most so many rows are embedded for a validation

    def __post_init__(self) -> None:
        if self.signal == "knn" and not self.label:
            raise ValueError("monitor.signal 'knn' needs monitor.label, the column to predict")
        if self.every < 1:
            raise ValueError("monitor.every must be at least 1")

    def better(self, new: float, best: float | None) -> bool:
        """Whether `new` beats `best` by more than `min_delta`."""
        if math.isnan(new):
            return False
        if best is None:
            return True
        return new < best - self.min_delta if self.signal == "loss" else new > best + self.min_delta


def effective_rank(x: Float[Tensor, "n dim"]) -> float:
    """Exponential of the entropy of the normalised singular values of the centred embeddings, between 1 and dim."""
    values = torch.linalg.svdvals((x - x.mean(0)).double())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


def alignment(a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> float:
    """Mean squared distance of L2-normalised positives; 0 is perfect, 2 is what unrelated pairs have."""
    return float((functional.normalize(a, dim=-1) - functional.normalize(b, dim=-1)).square().sum(-1).mean())


def uniformity(x: Float[Tensor, "n dim"]) -> float:
    """log of the mean Gaussian potential of L2-normalised embeddings; 0 is collapsed, about -4 is uniform."""
    if len(x) < 2:
        return 0.0
    distances = torch.pdist(functional.normalize(x.float(), dim=-1)).square()
    return float(distances.mul(-2).exp().mean().log())


def spread(x: Float[Tensor, "n dim"]) -> float:
    """How much samples differ, relative to what they share: root mean square about the mean over root mean square, 0 to 1."""
    centred = (x - x.mean(0)).double().square().sum(1).mean().sqrt()
    return float(centred / x.double().square().sum(1).mean().sqrt().clamp_min(1e-12))


def retrieval_top1(a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> float:
    """Share of rows of `a` whose nearest row of `b` (cosine) is their own."""
    similarity = functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).T
    return float((similarity.argmax(1) == torch.arange(len(a), device=a.device)).float().mean())


def knn_accuracy(
    gallery: Float[Tensor, "n dim"],
    gallery_labels: Int[Tensor, "n"],
    queries: Float[Tensor, "m dim"],
    query_labels: Int[Tensor, "m"],
    neighbours: int,
) -> float:
    """Balanced accuracy of a cosine kNN vote; the gallery holds training subjects, the queries validation subjects."""
    similarity = (
        functional.normalize(queries, dim=-1) @ functional.normalize(gallery, dim=-1).T
    ).float()  # also under autocast
    nearest = similarity.topk(min(neighbours, len(gallery)), dim=1)
    classes = int(torch.cat([gallery_labels, query_labels]).max()) + 1
    votes = torch.zeros(len(queries), classes, device=queries.device)
    votes.scatter_add_(1, gallery_labels[nearest.indices], nearest.values.exp())
    correct = votes.argmax(1) == query_labels
    return float(torch.stack([correct[query_labels == c].float().mean() for c in query_labels.unique()]).mean())


def collapse_alarms(measures: Mapping[str, float], dims: Mapping[str, int]) -> list[str]:
    """Sentences that say what has collapsed and what to do, for `<name>/effective_rank` and `<name>/spread`."""
    alarms = []
    for name, dim in dims.items():
        rank = measures.get(f"{name}/effective_rank")
        share = measures.get(f"{name}/spread")
        if rank is not None and rank < max(2.0, 0.02 * dim):
            alarms.append(
                f"{name}: effective rank {rank:.1f} of {dim}: the embeddings have collapsed to a few directions; raise the "
                "batch size, lower the learning rate, or add a vicreg objective"
            )
        elif share is not None and share < 0.01:
            alarms.append(
                f"{name}: spread {share:.4f}: all samples are embedded at nearly the same place; lower the temperature or "
                "check that the views of different samples really differ"
            )
    return alarms
