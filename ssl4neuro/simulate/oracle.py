"""How hard a simulated cohort is: what an oracle that knows the truth reaches, and what plain machine learning reaches.

Unit. The state is a property of a session, so the headline is the AUC over sessions (pre against post) of one score per
session: the sum over its networks of the evidence for `post`. The same per cell (subject x network x state) is reported beside
it; a single network says less than five.

Oracle. A linear discriminant with the known mean difference and the known covariance of the model, fitted to nothing:
  map     w = C^-1 (delta - A lambda), with A = [1, mean map, rim] and w orthogonal to A, so that neither z-scoring nor head
          motion matters. C sums noise, voxel noise, the subject's fields, gains and shifts, and the site's field. C is an
          operator (two Gaussian filters), solved by conjugate gradients;
  course  the Whittle slope of the spectrum, against its known spread over subjects, networks, sessions and estimates.
Maps are z-scored and turned to positive skewness first, as `prepare` does. Under confounding the oracle still uses the effect
alone.

Calibration. `MapModel.noise` was set for an oracle AUC of 0.95 per session at effect 1, in expectation over cohorts. Measured
on 20 cohorts of 40 subjects (`tests/benchmarks/bench_simulation.py`): oracle 0.948 (sd over cohorts 0.018), PCA + logistic
regression on maps 0.707 (0.081), with spectra 0.842 (0.042). `expected_auc` is normal theory and about 0.01 too high there.
How much of the evidence lies in maps and how much in courses was chosen with an eye on what a small network learns (about nine
settings tried on seeds 0 to 2, which include the quick start's), so claims about encoders need other seeds. Nothing is tuned
when a cohort is made.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.linalg import LinearOperator, cg
from scipy.stats import norm, rankdata

from ssl4neuro.simulate.cohort import MEDIAN_FD, MOTION_SPREAD, SimulatedCohort, SimulatedScan
from ssl4neuro.simulate.courses import estimate_redundancy, slope_error, spectral_slope
from ssl4neuro.simulate.networks import NETWORKS, network_map


def auc(score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"]) -> float:
    """Area under the ROC curve by ranks; ties count one half. NaN when a class is empty."""
    n1, n0 = int(positive.sum()), int((~positive).sum())
    return float((rankdata(score)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if n1 and n0 else float("nan")


def subject_interval(
    score: Float[np.ndarray, "n"], positive: Bool[np.ndarray, "n"], subject: Int[np.ndarray, "n"], draws: int = 1000
) -> tuple[float, float]:
    """95 % bootstrap interval of the AUC; whole subjects are drawn.

    With counts c of the drawn subjects the AUC is c' W c / c' M c, where W[i, j] counts the pairs (post of i, pre of j) in the
    right order and M all of them: exact, and no resample is ever formed.
    """
    people, code = np.unique(subject, return_inverse=True)
    post, pre = np.flatnonzero(positive), np.flatnonzero(~positive)
    won = (score[post, None] > score[pre]) + 0.5 * (score[post, None] == score[pre])
    one_hot = np.eye(len(people))[code]
    right = one_hot[post].T @ won @ one_hot[pre]
    pairs = np.outer(one_hot[post].sum(0), one_hot[pre].sum(0))
    counts = np.random.default_rng(0).multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    won, all_pairs = (np.einsum("bi,ij,bj->b", counts, m, counts, optimize=True) for m in (right, pairs))
    both = all_pairs > 0  # a resample of subjects of one kind only says nothing
    low, high = np.quantile(won[both] / all_pairs[both], [0.025, 0.975])
    return float(low), float(high)


def standardise(
    maps: Float[np.ndarray, "n voxels"],
) -> tuple[Float[np.ndarray, "n voxels"], Int[np.ndarray, "n"]]:
    """z-score each map over its voxels and turn it to positive skewness, as `prepare` does; also the signs applied."""
    z = (maps - maps.mean(axis=1, keepdims=True)) / maps.std(axis=1, keepdims=True)
    sign = np.where((z**3).mean(axis=1) < 0, -1, 1)
    return z * sign[:, None].astype(z.dtype), sign


@dataclass
class Evidence:
    """Scores of the cells of one scan for `post`; one entry per network."""

    map: Float[np.ndarray, "networks"]
    course: Float[np.ndarray, "networks"]
    map_session: float  # the networks together: their common drift is taken into account
    course_session: float  # the same for the slopes and their common spread over subjects

    @property
    def cell(self) -> Float[np.ndarray, "networks"]:
        return self.map + self.course

    @property
    def session(self) -> float:
        return self.map_session + self.course_session


class Oracle:
    """Scores scans with the true effect and the true covariance. With effect 0 it looks for the effect of size 1."""

    def __init__(self, cohort: SimulatedCohort) -> None:
        self.cohort, self.names = cohort, cohort.names
        model, effect = cohort.model, cohort.settings.effect or 1.0
        self.before = np.stack([network_map(cohort.xyz, name, blur=model.shift) for name in self.names])
        change, widening = effect * model.change, effect * model.widening
        after = [network_map(cohort.xyz, name, change=change, widening=widening, blur=model.shift) for name in self.names]
        self.delta = np.stack(after) - self.before
        self.sites = model.site * np.stack(cohort.site_maps)
        # Head motion is lognormal about its median; in units of the median, its mean and sd.
        self.motion = model.motion * cohort.settings.motion / MEDIAN_FD * np.exp(MOTION_SPREAD**2 / 2)
        self.motion_sd = self.motion * np.sqrt(np.exp(MOTION_SPREAD**2) - 1)
        self.middle = self.before + self.delta / 2 + self.sites.mean(axis=0) + self.motion * cohort.rim
        weights = [self._weights(k) for k in range(len(self.names))]
        self.weights = np.stack([w for w, _ in weights])
        self.power = np.array([power for _, power in weights])  # squared d' of each network's map
        self.redundancy = estimate_redundancy(cohort.settings.courses, len(self.names))
        self.slope_difference = effect * cohort.settings.courses.state

    def _individual(self, k: int) -> Float[np.ndarray, "patterns voxels"]:
        """Low-rank variation: gains of the nodes, shifts, spread of the effect, sites; rows scaled by their sd."""
        cohort, m, name = self.cohort, self.cohort.model, self.names[k]
        nodes = len(NETWORKS[name])
        base = network_map(cohort.xyz, name)
        gains = [m.node * (network_map(cohort.xyz, name, 1.0 + np.eye(nodes)[j]) - base) for j in range(nodes)]
        shifts = [m.shift * (network_map(cohort.xyz, name, shift=np.eye(3)[j]) - base) for j in range(3)]
        spread = [np.sqrt(0.5) * m.change_sd / m.change * self.delta[k]]  # after the operation only, hence half
        sites = list((self.sites - self.sites.mean(axis=0)) / np.sqrt(len(self.sites)))
        return np.stack(gains + shifts + spread + sites)

    def _weights(self, k: int) -> tuple[Float[np.ndarray, "voxels"], float]:
        cohort, m, middle = self.cohort, self.cohort.model, self.middle[k]
        template, low_rank = self.before[k] + self.delta[k] / 2, self._individual(k)
        repeats = cohort.settings.components

        def covariance(x: np.ndarray) -> np.ndarray:
            x = x.ravel()
            texture_noise, background = cohort.noise_field.covariance(np.stack([template * x, x]))
            texture, field = cohort.subject_field.covariance(np.stack([template * x, x]))
            # The noise multiplies what subjects have made of the template, so their gains and textures enlarge it.
            scatter = cohort.noise_sd**2 * (1 + m.texture**2 + m.node**2)
            total = scatter * template * texture_noise + cohort.background_sd**2 * background + cohort.white_sd**2 * x
            total = total / repeats + m.texture**2 * template * texture + m.field**2 * field
            return total + low_rank.T @ (low_rank @ x)

        operator = LinearOperator((len(middle), len(middle)), matvec=covariance, dtype=np.float64)
        fixed = np.stack([np.ones_like(middle), middle, cohort.rim])
        solved = np.stack([cg(operator, b, rtol=1e-3, maxiter=500)[0] for b in (self.delta[k], *fixed)])
        multiplier = np.linalg.solve(fixed @ solved[1:].T, fixed @ solved[0])
        w = solved[0] - multiplier @ solved[1:]
        return w, float(w @ self.delta[k])

    def expected_auc(self) -> float:
        """AUC over sessions that the normal theory predicts for cohorts with these settings."""
        if self.cohort.settings.effect == 0:
            return 0.5
        s, c = self.cohort.settings, self.cohort.settings.courses
        errors = np.array([slope_error(t, s.tr) for t in range(250, 601, 25)])
        spread = c.subject**2 + (c.network**2 + c.session**2 + self.redundancy * errors**2) / len(self.names)
        power = self.power.sum() / self._drift(self.power.sum()) + np.mean(self.slope_difference**2 / spread)
        return float(norm.cdf(np.sqrt(power / 2)))

    def evidence(self, scan: SimulatedScan) -> Evidence:
        """Log-likelihood ratio of post against pre, per network, from the scan as it lies on disk."""
        z, _ = standardise(scan.maps)
        course_model, s = self.cohort.settings.courses, self.cohort.settings
        slopes = spectral_slope(scan.courses, scan.tr)
        maps, slope = np.zeros(len(self.names)), np.zeros(len(self.names))
        for k, name in enumerate(self.names):
            mine = np.array([n == name for n in scan.network])
            # Back to units of the template: w is blind to the mean map, so the scale comes from the map's own sd.
            maps[k] = self.weights[k] @ (z[mine].mean(axis=0) * self.scale(k) - self.middle[k])
            slope[k] = slopes[mine].mean() - course_model.slope - self.slope_difference / 2
        error = slope_error(scan.courses.shape[1], scan.tr) ** 2 / (1 if s.components == 1 else 1 + (s.components - 1) * 0.5)
        own = course_model.network**2 + course_model.session**2
        spread = course_model.subject**2 + (own + self.redundancy * error) / len(slope)
        return Evidence(
            map=maps / self._drift(self.power),
            course=self.slope_difference * slope / (course_model.subject**2 + own + error),
            map_session=float(maps.sum() / self._drift(self.power.sum())),
            course_session=float(self.slope_difference * slope.mean() / spread),
        )

    def _drift(self, power: np.ndarray | float) -> np.ndarray | float:
        """By how much the drift along the effect's axis devalues evidence of the squared d' `power`."""
        return 1 + (self.cohort.model.drift / (self.cohort.settings.effect or 1.0)) ** 2 * power

    def scale(self, k: int) -> float:
        """Expected in-mask sd of a map of network `k`, in units of a node's peak."""
        m, c = self.cohort.model, self.cohort
        within = (m.texture**2 + c.noise_sd**2) * (self.middle[k] ** 2).mean()
        return float(
            np.sqrt(self.middle[k].var() + within + c.background_sd**2 + c.white_sd**2 + m.field**2 + self.motion_sd**2)
        )
