"""Sites are told apart before harmonisation and not after."""

import numpy as np
import pandas as pd

from ssl4neuro.evaluate.crossval import Candidate, Settings
from ssl4neuro.evaluate.features import ArrayFeatures, ConstantFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import pose
from ssl4neuro.evaluate.site_decodability import COLUMNS, site_decodability

SETTINGS = Settings(permutations=100, bootstrap=200)


def _question(shift: float, sites: tuple[str, ...] = ("A", "B", "C")) -> tuple:
    """40 subjects × 2 scans; `shift` standard deviations between sites in every feature, and a gain."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(40), 2)
    code = subject % len(sites)
    table = pd.DataFrame({"subject": [f"s{i:02d}" for i in subject], "session": np.tile(["1", "2"], 40)})
    table["scanner"] = np.array(sites)[code]
    table["state"] = np.tile(["pre", "post"], 40)
    x = rng.normal(size=(80, 10)) * (1 + 0.2 * shift * code[:, None]) + shift * rng.normal(size=(len(sites), 10))[code]
    problem = pose(table, table["state"], "state", "session", site="scanner")
    candidates = [Candidate("joint", ArrayFeatures(x.astype(np.float32)), LinearProbe())]
    candidates.append(Candidate("majority", ConstantFeatures(), LinearProbe(), baseline=True, informative=False))
    return problem, candidates


def test_a_site_effect_is_seen_and_taken_out() -> None:
    table, notes = site_decodability(*_question(2.0), "scanner", SETTINGS)
    assert list(table.columns) == list(COLUMNS)
    assert notes == []
    assert table["model"].tolist() == ["joint", "joint"]  # the majority class has no features
    before, after = table.set_index("features").loc[["as given", "harmonised"]].to_dict("records")
    assert before["metric"] == "AUC"
    assert before["value"] > 0.9
    assert before["p"] < 0.02
    assert after["value"] < 0.65
    assert after["p"] > 0.05
    assert before["n_subjects"] == 40


def test_without_a_site_effect_there_is_none() -> None:
    table, _ = site_decodability(*_question(0.0), "scanner", SETTINGS)
    assert (table["p"] > 0.05).all()


def test_what_cannot_be_told_is_a_note() -> None:
    problem, candidates = _question(1.0)
    alone = problem.table.assign(scanner=np.where(problem.table["subject"] == "s00", "X", "A"))
    table, notes = site_decodability(type(problem)(**{**vars(problem), "table": alone}), candidates, "scanner", SETTINGS)
    assert len(table) == 0
    assert notes[0].startswith("site decodability was left out: ")


def test_constant_features_tell_nothing() -> None:
    problem, _ = _question(1.0)
    table, _ = site_decodability(
        problem, [Candidate("joint", ArrayFeatures(np.ones((80, 3))), LinearProbe())], "scanner", SETTINGS
    )
    assert table["value"].tolist() == [0.5, 0.5]
