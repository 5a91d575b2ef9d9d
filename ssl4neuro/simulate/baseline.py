"""What plain machine learning reaches on a simulated cohort: PCA + logistic regression, and the nuisances alone.

Everything that is fitted (PCA, scaling, regression) is fitted on the training subjects of each fold.
"""

import warnings

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl4neuro.simulate.networks import Brain

FOLDS = 5


def coarse(brain: Brain, maps: Float[np.ndarray, "maps voxels"], size: float = 8.0) -> Float[np.ndarray, "maps blocks"]:
    """Block means of about `size` mm, so that the PCA of a fine grid takes no more memory than that of the default one."""
    step = max(1, int(size // brain.resolution))
    if step == 1:
        return maps
    grid = brain.volume(maps)
    grid = np.pad(grid, [(0, 0)] + [(0, -n % step) for n in grid.shape[1:]])
    x, y, z = (n // step for n in grid.shape[1:])
    means = grid.reshape(len(maps), x, step, y, step, z, step).mean(axis=(2, 4, 6)).reshape(len(maps), -1)
    inside = (
        np.pad(brain.mask, [(0, -n % step) for n in brain.mask.shape]).reshape(x, step, y, step, z, step).any(axis=(1, 3, 5))
    )
    return means[:, inside.ravel()]


def pca_logistic(
    blocks: list[tuple[Float[np.ndarray, "scans units _"], int]],
    positive: Bool[np.ndarray, "scans"],
    subject: Int[np.ndarray, "scans"],
) -> Float[np.ndarray, "scans units"]:
    """Out-of-fold decision values for `post` of PCA + logistic regression, one model per unit (a network, or all of them).

    Args:
        blocks: pairs of features and number of principal components; their scores are joined.
        positive: the state of each scan.
        subject: folds are made of whole subjects.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first, _ = blocks[0]
    scores = np.zeros((first.shape[0], first.shape[1]))
    for train, test in subject_folds(subject):
        for k in range(scores.shape[1]):
            parts = []
            for features, wanted in blocks:
                x = features[:, k]
                pca = PCA(min(wanted, len(train) - 1, x.shape[1]), svd_solver="randomized", random_state=0).fit(x[train])
                parts.append(pca.transform(x))
            joined = np.concatenate(parts, axis=1)
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(joined[train], positive[train])
            scores[test, k] = model.decision_function(joined[test])
    return scores


def nuisance_logistic(
    nuisances: Float[np.ndarray, "scans columns"], positive: Bool[np.ndarray, "scans"], subject: Int[np.ndarray, "scans"]
) -> Float[np.ndarray, "scans"]:
    """Out-of-fold decision values for `post` of a logistic regression on nuisance variables alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(len(positive))
    for train, test in subject_folds(subject):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant column
            model = make_pipeline(StandardScaler(), LogisticRegression()).fit(nuisances[train], positive[train])
        scores[test] = model.decision_function(nuisances[test])
    return scores


def subject_folds(subject: Int[np.ndarray, "scans"]) -> list[tuple[Int[np.ndarray, "train"], Int[np.ndarray, "test"]]]:
    """Train and test scans of each fold; whole subjects, in a fixed random order."""
    people, code = np.unique(subject, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(people)) % min(FOLDS, len(people))
    return [(np.flatnonzero(fold[code] != k), np.flatnonzero(fold[code] == k)) for k in range(fold.max() + 1)]
