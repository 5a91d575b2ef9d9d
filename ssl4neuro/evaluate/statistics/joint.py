"""Permutations that several targets share, so that their dependence survives (for `max_statistic`).

Targets whose labels belong to subjects are permuted by one permutation of the subjects, with all their labels at once; those
whose labels vary within subjects, by one permutation of scans within subjects. The two are drawn apart from each other: labels
of one kind say nothing of the order of the other. A subject (scan) without the label of some target changes
places only with others that lack the same labels, so that the rows of every target stay what they are and the test stays exact.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.statistics.permutation import constant_within


class Exchange(NamedTuple):
    """What changes places in one target, in names that mean the same in all targets."""

    scheme: str  # targets of the same scheme share permutations
    unit: Shaped[np.ndarray, "rows"]  # subject, scan or row that moves as a whole
    pool: Int[np.ndarray, "rows"]  # constant within a unit: units of one pool may change places
    labels: Shaped[np.ndarray, "rows"]


def joint_labels(targets: Sequence[Exchange], permutations: int, seed: int) -> list[Shaped[np.ndarray, "rows permutations"]]:
    """Permuted labels of every target; column k of all of them is the same rearrangement.

    Raises:
        UserError: the labels of a target cannot change places.
    """
    found: list[np.ndarray | None] = [None] * len(targets)
    for number, scheme in enumerate(dict.fromkeys(target.scheme for target in targets)):
        members = [i for i, target in enumerate(targets) if target.scheme == scheme]
        names, sources = _shared([targets[i] for i in members], permutations, np.random.default_rng([seed, 0x101A7, number]))
        for i in members:
            found[i] = _moved(targets[i], names, sources)
    return [labels for labels in found if labels is not None]


def _shared(
    targets: list[Exchange], permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, Int[np.ndarray, "units permutations"]]:
    """Names of all units, and for each whose labels it gets."""
    names = np.unique(np.concatenate([target.unit.astype(str) for target in targets]))
    kinds: list[list[Hashable]] = [[] for _ in names]
    for target in targets:
        kept, code, first, size = _units(target)
        alike = bool(constant_within(target.labels, code).all())
        at = dict(zip(kept.tolist(), range(len(kept)), strict=True))
        for kind, name in zip(kinds, names.tolist(), strict=True):
            i = at.get(name)
            # units of different size exchange one label, but not a sequence of them
            kind.append(None if i is None else (int(target.pool[first[i]]), 0 if alike else int(size[i])))
    blocks: dict[Hashable, list[int]] = {}
    for i, kind in enumerate(kinds):
        blocks.setdefault(tuple(kind), []).append(i)
    source = np.tile(np.arange(len(names)), (permutations, 1))
    for block in blocks.values():
        source[:, block] = rng.permuted(np.tile(block, (permutations, 1)), axis=1)
    return names, source.T


def _units(target: Exchange) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Names, code of each row, first row and number of rows of the units."""
    names, first, code, size = np.unique(target.unit.astype(str), return_index=True, return_inverse=True, return_counts=True)
    return names, code, first, size


def _moved(target: Exchange, names: np.ndarray, source: np.ndarray) -> np.ndarray:
    kept, code, _, size = _units(target)
    order = np.argsort(code, kind="stable")  # rows by unit
    start = np.cumsum(size) - size
    place = np.empty(len(code), dtype=np.int64)  # of a row in its unit
    place[order] = np.arange(len(code)) - start[code[order]]
    local = np.full(len(names), -1)
    local[np.searchsorted(names, kept)] = np.arange(len(kept))
    giver = local[source[np.searchsorted(names, kept)]][code]  # [rows, permutations]
    moved = target.labels[order[start[giver] + place[:, None] % size[giver]]]
    if source.shape[1] and (moved == target.labels[:, None]).all():
        raise UserError(
            f"permutations: no two labels can change places {target.scheme} among those that lack the same targets;"
            " probe this target by itself or use --permutations 0"
        )
    return moved
