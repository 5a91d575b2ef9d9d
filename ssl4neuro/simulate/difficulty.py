"""The numbers printed with a cohort: oracle, PCA + logistic regression, nuisances alone, identification from FNC.

Per session, PCA + logistic regression sees the maps of all its networks side by side (50 components, as the baseline of
`evaluate`); per cell there is one model for each network (20 components). With spectra, 10 and 3 components of the courses' log
spectra are added.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from ssl4neuro.simulate.baseline import coarse, nuisance_logistic, pca_logistic
from ssl4neuro.simulate.cohort import SimulatedCohort, SimulatedScan
from ssl4neuro.simulate.courses import log_spectrum
from ssl4neuro.simulate.oracle import Evidence, Oracle, auc, standardise, subject_interval


class Difficulty:
    """Collects a cohort's scans one by one; keeps block means of the maps, not the maps."""

    def __init__(self, cohort: SimulatedCohort) -> None:
        self.cohort, self.oracle = cohort, Oracle(cohort)
        self.evidence: list[Evidence] = []
        self.maps: list[np.ndarray] = []
        self.spectra: list[np.ndarray] = []
        self.fnc: list[np.ndarray] = []
        self.nuisances: list[list[float]] = []
        self.state: list[bool] = []
        self.subject: list[str] = []

    def add(self, scan: SimulatedScan) -> None:
        """Take one scan as it lies on disk; its components are averaged per network after sign fixing."""
        self.evidence.append(self.oracle.evidence(scan))
        z, sign = standardise(scan.maps)
        z = coarse(self.cohort.brain, z)
        courses = sign[:, None] * scan.courses
        spectra = np.stack([log_spectrum(course, scan.tr) for course in courses])
        members = [np.array([name == other for other in scan.network]) for name in self.cohort.names]
        self.maps.append(np.stack([z[mine].mean(axis=0) for mine in members]))
        self.spectra.append(np.stack([spectra[mine].mean(axis=0) for mine in members]))
        correlation = np.corrcoef(np.stack([courses[mine].mean(axis=0) for mine in members]))
        self.fnc.append(np.arctanh(np.clip(np.atleast_2d(correlation), -0.999, 0.999))[np.triu_indices(len(members), 1)])
        n = scan.nuisance
        self.nuisances.append([n.mean_fd, n.tsnr, float(n.volumes)])
        self.state.append(scan.state == "post")
        self.subject.append(scan.subject)

    def numbers(self) -> dict[str, object]:
        """AUCs of the state (positive: post), each with a 95 % interval over subjects, as stored in `truth.json`."""
        post = np.array(self.state)
        _, subject = np.unique(self.subject, return_inverse=True)
        cells = np.stack([e.cell for e in self.evidence])
        maps, spectra = np.stack(self.maps), np.stack(self.spectra)
        nuisance = nuisance_logistic(np.array(self.nuisances), post, subject)
        session = np.array([e.session for e in self.evidence])
        return {
            "subjects": len(self.cohort),
            "sessions": len(post),
            "expected_oracle": round(self.oracle.expected_auc(), 4),
            "oracle": self._scores(session, cells, post, subject),
            "pca_logistic": self._learned([(maps, 50, 20)], post, subject),
            "pca_logistic_with_spectra": self._learned([(maps, 50, 20), (spectra, 10, 3)], post, subject),
            "nuisance_logistic": {"session": interval(nuisance, post, subject)},
            "fnc_identification": round(fnc_identification(np.stack(self.fnc), post, subject), 4)
            if maps.shape[1] > 1
            else None,
        }

    def _learned(
        self,
        blocks: list[tuple[Float[np.ndarray, "scans networks _"], int, int]],
        post: Bool[np.ndarray, "scans"],
        subject: Int[np.ndarray, "scans"],
    ) -> dict[str, object]:
        """Blocks are features with the numbers of components per session and per cell."""
        together = pca_logistic([(x.reshape(len(x), 1, -1), wanted) for x, wanted, _ in blocks], post, subject)
        apart = pca_logistic([(x, wanted) for x, _, wanted in blocks], post, subject)
        return self._scores(together[:, 0], apart, post, subject)

    def _scores(
        self,
        session: Float[np.ndarray, "scans"],
        cells: Float[np.ndarray, "scans networks"],
        post: Bool[np.ndarray, "scans"],
        subject: Int[np.ndarray, "scans"],
    ) -> dict[str, object]:
        count = cells.shape[1]
        return {
            "session": interval(session, post, subject),
            "cell": interval(cells.ravel(), np.repeat(post, count), np.repeat(subject, count)),
            "network": {name: round(auc(cells[:, k], post), 4) for k, name in enumerate(self.cohort.names)},
        }


def interval(score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], subject: Int[np.ndarray, "n"]) -> dict[str, float]:
    """AUC with its subject-level 95 % bootstrap interval."""
    low, high = subject_interval(score, positive, subject)
    return {"auc": round(auc(score, positive), 4), "low": round(low, 4), "high": round(high, 4)}


def fnc_identification(
    fnc: Float[np.ndarray, "scans edges"], post: Bool[np.ndarray, "scans"], subject: Int[np.ndarray, "scans"]
) -> float:
    """Share of subjects whose mean `post` FNC is nearest (Euclidean, Fisher z) to their own mean `pre` FNC."""
    people = np.unique(subject)
    before = np.stack([fnc[(subject == s) & ~post].mean(axis=0) for s in people])
    after = np.stack([fnc[(subject == s) & post].mean(axis=0) for s in people])
    nearest = ((after[:, None] - before[None]) ** 2).sum(axis=2).argmin(axis=1)
    return float((nearest == np.arange(len(people))).mean())


def describe(numbers: dict) -> str:
    """The numbers as a compact table."""
    rows = [("oracle (knows the effect)", "oracle"), ("PCA + logistic, maps", "pca_logistic")]
    rows += [("PCA + logistic, maps + spectra", "pca_logistic_with_spectra"), ("nuisances only, logistic", "nuisance_logistic")]
    lines = [f"{'state, pre against post':32s}{'AUC per session [95 % CI]':>28s}{'per cell [95 % CI]':>26s}"]
    for label, key in rows:
        entry = numbers[key]
        cell = _text(entry["cell"]) if "cell" in entry else ""
        lines.append(f"{label:32s}{_text(entry['session']):>28s}{cell:>26s}")
    n = numbers["subjects"]
    lines += [
        f"n = {n} subjects, {numbers['sessions']} sessions; intervals by bootstrap over subjects; cell: a network of a session",
        f"normal theory expects the oracle at {numbers['expected_oracle']:.3f} on average; one cohort scatters around it",
    ]
    if numbers["fnc_identification"] is not None:
        found = f"{numbers['fnc_identification']:.0%} (chance {1 / n:.1%})"
        lines.append(f"a subject's post scan finds its own pre scan by FNC: {found}")
    return "\n".join(lines)


def _text(entry: dict[str, float]) -> str:
    return f"{entry['auc']:.3f} [{entry['low']:.2f}, {entry['high']:.2f}]"
