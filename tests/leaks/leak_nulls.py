"""Random studies without a leak: nothing about the acquisition goes with the target, whatever the features say of it."""

import numpy as np
import pandas as pd

from ssl4neuro.evaluate.audit import audit
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Candidate, Settings
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import pose


def null_audit(seed: int) -> tuple[Check, ...]:
    """Audit of one random study: 20 to 150 subjects, one or two scans; two or three classes, values, or a state of the scan."""
    rng = np.random.default_rng([seed, 0x0F])
    kind = ("two classes", "three classes", "values", "state")[seed % 4]
    n = int(rng.integers(20, 151))
    people = pd.DataFrame({"subject": [f"sub-{i:03d}" for i in rng.permutation(n)]})
    sites = int(rng.integers(2, 9))
    people["site"] = rng.choice([f"site{i}" for i in range(sites)], n, p=rng.dirichlet(np.full(sites, 3.0)))
    people = people.assign(
        age=rng.normal(40, 12, n), sex=rng.choice(["F", "M"], n), handedness=rng.choice(["L", "R"], n, p=[0.1, 0.9])
    )
    people["scanner"] = np.where(rng.random(n) < 0.9, people["site"].str[-1], "x")
    if kind == "values":
        people["target"] = rng.normal(size=n)
    else:
        share = rng.uniform(0.3, 0.6)
        people["target"] = (
            rng.choice(["a", "b"], n, p=[share, 1 - share]) if kind != "three classes" else rng.choice(list("abc"), n)
        )
    visits = 2 if kind == "state" or seed % 8 == 0 else 1
    table = people.loc[np.repeat(people.index, visits)].reset_index(drop=True)
    table["session"] = [f"ses-{v}" for _ in range(n) for v in range(visits)]
    if kind == "state":
        table["target"] = np.concatenate([rng.permutation(["pre", "post"]) for _ in range(n)])
    rows = len(table)
    table = table.assign(
        n_volumes=rng.choice([150, 180, 200, 240], rows) + rng.integers(0, 5, rows),
        tr=rng.choice([2.0, 2.2, 0.8], rows),
        mean_fd=rng.gamma(2, 0.1, rows),
        scan_date=(pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 1500, rows), "D")).strftime("%Y-%m-%d"),
    )
    table["mean_fd"] = table["mean_fd"].where(rng.random(rows) > 0.1)
    return _audited(table, _features(table, rng), "session" if visits == 2 else "subject")


def _features(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """A few latent traits in many features, as embeddings have, with effects of person, site, age and target."""
    dim, latent = int(rng.choice([8, 32, 128])), int(rng.integers(3, 12))
    person = pd.factorize(table["subject"])[0]
    z = rng.normal(size=(person.max() + 1, latent))[person] + 0.5 * rng.normal(size=(len(table), latent))
    z = (
        z
        + rng.normal(size=(9, latent))[pd.factorize(table["site"])[0]]
        + 0.02 * table[["age"]].to_numpy() * rng.normal(size=latent)
    )
    z = z + 0.8 * pd.factorize(table["target"], sort=True)[0][:, None] / len(set(table["target"])) * rng.normal(size=latent)
    x = np.tanh(z @ rng.normal(size=(latent, dim))) if rng.random() < 0.5 else z @ rng.normal(size=(latent, dim))
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)


def _audited(table: pd.DataFrame, x: np.ndarray, unit: str) -> tuple[Check, ...]:
    table["run"] = ""
    problem = pose(table, table["target"], "target", unit, site="site")
    return audit(problem, [Candidate("joint", ArrayFeatures(x[problem.kept]), LinearProbe())], Settings(folds=3))
