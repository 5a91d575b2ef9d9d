"""Does a property of scans or subjects (site, number of volumes, part of an ID, file type) go with a label?

One measure for every pair of kinds: the mean squared canonical correlation of the property and the label, numbers as ranks and
categories as indicators. It is Spearman's rho² for two numbers, eta² of the ranks (Kruskal and Wallis' H / (n - 1)) for a
number and a category, and Cramér's V² for two categories. A number is held against the best separation that the class sizes
allow, so that 1 always means: the property tells the label. What chance gives on average is taken off, because a property with
many levels explains any label. p by exchanging labels, stopped early where nothing is found (Besag and Clifford, Biometrika
78, 1991); beyond what the permutations resolve, the tail of a gamma distribution with their moments (Winkler et al.,
NeuroImage 141, 2016), never below what the number of arrangements allows.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import gammaln
from scipy.stats import pearson3, rankdata, skew

MATERIAL = 0.4  # strength from which on a property is worth a word: rho or V 0.4, AUC 0.70
LEVEL, LAX = 0.01, 0.05  # family-wise, over all properties looked at: flagged; worth a word
FEW_VALUES = 6  # a number with no more distinct values is taken for a category
CHUNK = 250  # permutations at a time
ENOUGH = 20  # as extreme permutations after which p is known well enough
DATE = r"\d{4}-?\d{2}-?\d{2}(T.*| .*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}"


@dataclass(frozen=True)
class Labels:
    """The label of every unit that may be exchanged.

    Attributes:
        values: class codes, or values.
        classes: number of classes; 0 for values.
        blocks: labels change places within a block only (a subject's scans); None for everybody with everybody.
        permutations: of the labels, at most.
    """

    values: Float[np.ndarray, "units"]
    classes: int
    blocks: Int[np.ndarray, "units"] | None = None
    permutations: int = 999
    seed: int = 0
    _drawn: list[np.ndarray] = field(default_factory=list, repr=False, compare=False)

    def shuffled(self) -> Iterator[Int[np.ndarray, "chunk units"]]:
        """Permuted positions, the same ones for every property; drawn when first needed."""
        n, sizes = len(self.values), range(0, self.permutations, CHUNK)
        blocks = np.zeros(n, dtype=np.int64) if self.blocks is None else self.blocks
        home = np.argsort(blocks, kind="stable")
        for number, start in enumerate(sizes):
            if number == len(self._drawn):
                rng = np.random.default_rng([self.seed, 0xA55, number])
                keys = blocks + rng.random((min(CHUNK, self.permutations - start), n))
                order = np.empty(keys.shape, dtype=np.int32)
                order[:, home] = np.argsort(keys, axis=1)
                self._drawn.append(order)
            yield self._drawn[number]


@dataclass(frozen=True)
class Association:
    """How well a property tells the label."""

    name: str
    strength: float  # 0 to 1, chance taken off
    p: float
    words: str  # e.g. "site: AUC 0.98"
    key: str = ""  # equal for properties that divide the units alike, such as two names for one column; they count once

    @property
    def complete(self) -> bool:
        """Is the label a function of the property, or nearly so?"""
        return self.strength > 0.95


def associate(name: str, values: pd.Series, labels: Labels, told: str = "") -> Association | None:
    """Association of one property with the labels, units where it is missing left out; None where it does not vary.

    Args:
        values: one per unit; numbers, dates, or categories.
        told: what to call the property in `words`.
    """
    values = as_property(values)
    known = values.notna().to_numpy()
    if known.sum() < 4 or values[known].nunique() < 2:
        return None
    y = labels.values if known.all() else np.where(known, labels.values, np.nan)
    if len(np.unique(y[known])) < 2:
        return None
    if not known.all():
        kept = np.flatnonzero(known)
        blocks = None if labels.blocks is None else labels.blocks[kept]
        labels = Labels(labels.values[kept], labels.classes, blocks, labels.permutations, labels.seed)
        values = values.iloc[kept]
    x, target = _basis(values), _label_basis(labels)
    best = _best(x, labels)
    observed = _share(x, target[None], best)[0]
    null = np.empty(0)
    for order in labels.shuffled():
        null = np.append(null, _share(x, target[order], best))
        if (null >= observed - 1e-9).sum() >= ENOUGH or observed < MATERIAL**2:
            break
    chance = min(null.mean(), 1 - 1e-9)
    strength = float(np.sqrt(np.clip((observed - chance) / (1 - chance), 0, 1)))
    words = f"{told or name}: {_words(values, labels, float(np.sqrt(max(observed, 0))))}"
    key = sha256(np.ascontiguousarray(x if x.shape[1] == 1 else pd.factorize(values)[0]).tobytes()).hexdigest()
    return Association(name, strength, _p(observed, null, labels), words, key)


def flagged(found: Sequence[Association], level: float = LEVEL) -> list[Association]:
    """Material associations that chance does not explain, over all properties looked at (Holm, Scand. J. Stat. 6, 1979)."""
    best = {one.key or str(id(one)): one.p for one in found}
    sure = set()
    for rank, (key, p) in enumerate(sorted(best.items(), key=lambda pair: pair[1])):
        if p * (len(best) - rank) > level:
            break
        sure.add(key)
    return [one for one in found if (one.key or str(id(one))) in sure and one.strength >= MATERIAL]


def undecided(found: Sequence[Association], labels: Labels) -> list[Association]:
    """Material associations that are flagged at a laxer level only, or complete ones that so few units cannot show at any."""
    sure = {id(one) for one in flagged(found)}
    close = {id(one) for one in flagged(found, LAX)}
    few = least_p(labels) * len(found) > LEVEL
    return [one for one in found if id(one) not in sure and (id(one) in close or (few and one.complete))]


def least_p(labels: Labels) -> float:
    """The smallest p that a perfect association can reach: one arrangement of the labels (two: and its mirror) of all."""
    blocks = np.zeros(len(labels.values), dtype=np.int64) if labels.blocks is None else labels.blocks
    arrangements = 0.0
    for block in np.unique(blocks):
        counts = np.unique(labels.values[blocks == block], return_counts=True)[1]
        arrangements += float(gammaln(counts.sum() + 1) - gammaln(counts + 1).sum())
    return float(min(1.0, 2 * np.exp(-arrangements)))


def _p(observed: float, null: np.ndarray, labels: Labels) -> float:
    extreme = int((null >= observed - 1e-9).sum())
    p = (1 + extreme) / (1 + len(null))
    if extreme or null.std() < 1e-12 or len(null) < labels.permutations:
        return p
    tail = pearson3.sf(observed, max(float(skew(null)), 1e-3), loc=null.mean(), scale=null.std())
    return float(min(p, max(tail, least_p(labels))))


def as_property(values: pd.Series) -> pd.Series:
    """Numbers where all known values are numbers, days where all are dates, otherwise text; few distinct numbers are text."""
    known = values.dropna()
    if known.empty:
        return values
    if pd.api.types.is_bool_dtype(known):
        return values.map(str, na_action="ignore")
    numbers = (
        pd.to_numeric(known, errors="coerce") if not pd.api.types.is_datetime64_any_dtype(known) else known.map(lambda _: None)
    )
    if numbers.notna().all():
        if numbers.nunique() <= FEW_VALUES:
            return values.map(str, na_action="ignore")
        return pd.to_numeric(values, errors="coerce")
    text = known.astype(str).str.strip()
    if text.str.fullmatch(DATE).all() or pd.api.types.is_datetime64_any_dtype(known):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dates = pd.to_datetime(values.map(str, na_action="ignore"), errors="coerce", format="mixed", utc=True)
        if dates[known.index].notna().all():
            return (dates - pd.Timestamp("1900-01-01", tz="UTC")).dt.total_seconds() / 86400
    return values.map(lambda value: str(value).strip(), na_action="ignore")


def missing(columns: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """Whether a value is missing, for the columns in which some are: a gap can tell the label as well as a value."""
    return {
        name: values.isna().map({True: "missing", False: "there"}) for name, values in columns.items() if values.isna().any()
    }


def _basis(values: pd.Series) -> np.ndarray:
    """Orthonormal columns [units, dims] that span the centred ranks, or the centred indicators."""
    if pd.api.types.is_numeric_dtype(values):
        ranks = rankdata(values.to_numpy(dtype=np.float64))
        ranks -= ranks.mean()
        return (ranks / np.linalg.norm(ranks))[:, None]
    return _indicators(pd.factorize(values)[0])


def _label_basis(labels: Labels) -> np.ndarray:
    if labels.classes:
        return _indicators(np.unique(labels.values, return_inverse=True)[1])
    return _basis(pd.Series(labels.values))


def _indicators(codes: np.ndarray) -> np.ndarray:
    """Indicators scaled to unit length; with their common direction left in, whose share is exactly 1 (see `_share`)."""
    levels = codes.max() + 1
    table = np.zeros((len(codes), levels))
    table[np.arange(len(codes)), codes] = 1
    return table / np.sqrt(table.sum(0))


def _share(x: np.ndarray, targets: np.ndarray, best: float) -> np.ndarray:
    """Mean squared canonical correlation with each of `targets` [draws, units, dims], of the largest there can be."""
    both = x.shape[1] > 1 and targets.shape[2] > 1
    product = np.einsum("ua,dub->dab", x, targets, optimize=True)
    total = (product**2).sum((1, 2)) - (1.0 if both else 0.0)  # centred ranks have nothing in common with the constant
    dims = max(1, min(x.shape[1] - (x.shape[1] > 1), targets.shape[2] - (targets.shape[2] > 1)))
    return total / dims / best


def _best(x: np.ndarray, labels: Labels) -> float:
    """The largest share that a number can have with classes of these sizes: when it sorts them."""
    one = x.shape[1] == 1
    if one and labels.classes:
        means = np.array([x[labels.values == code, 0].mean() for code in np.unique(labels.values)])
        place = np.argsort(np.argsort(means))[np.unique(labels.values, return_inverse=True)[1]]
        ideal = np.empty(len(x))
        ideal[np.argsort(place, kind="stable")] = np.sort(x[:, 0])
        return max(_share(ideal[:, None], _label_basis(labels)[None], 1.0)[0], 1e-9)
    return 1.0


def _words(values: pd.Series, labels: Labels, strength: float) -> str:
    """`AUC 0.98` for two classes, `rho` or `eta` or `V` otherwise."""
    number = pd.api.types.is_numeric_dtype(values)
    if len(np.unique(labels.values)) == 2:
        positive = labels.values == labels.values.max()
        rate = pd.Series(positive.astype(float), index=values.index)
        score = values.to_numpy(dtype=float) if number else rate.groupby(values).transform("mean").to_numpy()
        ranks = rankdata(score)
        up = positive.sum()
        auc = (ranks[positive].sum() - up * (up + 1) / 2) / (up * (len(positive) - up))
        return f"AUC {max(auc, 1 - auc):.2f}"
    name = {(True, True): "rho", (False, False): "V"}.get((number, not labels.classes), "eta")
    return f"{name} {strength:.2f}"
