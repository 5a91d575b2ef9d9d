"""Harmonisation inside the fold."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.combat import Combat
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import ArrayFeatures, ConstantFeatures, NuisanceFeatures
from ssl4neuro.evaluate.harmonise import HarmonisedFeatures, harmonised
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import Problem, pose

TRAIN, TEST = np.arange(40), np.arange(40, 60)


def _data(seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"subject": [f"s{i}" for i in range(60)], "scanner": np.tile(["A", "B", "C"], 20)})
    table["age"] = rng.normal(40, 10, 60)
    table["group"] = rng.choice(["control", "patient"], 60)
    x = rng.normal(size=(60, 6)) + 3 * (table["scanner"] == "A").to_numpy()[:, None]
    return x.astype(np.float32), table


def _problem() -> tuple[Problem, list[Candidate]]:
    x, table = _data()
    problem = pose(table, table["group"], "group", "subject", site="scanner")
    features = {"joint": ArrayFeatures(x), "nuisance only": NuisanceFeatures(table[["age"]]), "majority": ConstantFeatures()}
    return problem, [Candidate(name, given, LinearProbe(), name != "joint") for name, given in features.items()]


def test_a_fold_is_combat_fitted_on_its_training_rows() -> None:
    x, table = _data()
    covariates = table[["age"]]
    left, right = HarmonisedFeatures(ArrayFeatures(x), table["scanner"].to_numpy(), covariates).fold(TRAIN, TEST)
    model = Combat.fit(x[TRAIN].astype(float), table["scanner"][TRAIN].to_list(), covariates.iloc[TRAIN])
    np.testing.assert_allclose(
        left, model.apply(x[TRAIN].astype(float), table["scanner"][TRAIN].to_list(), covariates.iloc[TRAIN]), atol=1e-5
    )
    np.testing.assert_allclose(
        right, model.apply(x[TEST].astype(float), table["scanner"][TEST].to_list(), covariates.iloc[TEST]), atol=1e-5
    )


def test_test_rows_change_nothing_in_training() -> None:
    x, table = _data()
    sites, ages = table["scanner"].to_numpy(dtype=str), table[["age"]]
    left, right = HarmonisedFeatures(ArrayFeatures(x), sites, ages).fold(TRAIN, TEST)
    other, moved, older = x.copy(), sites.copy(), ages.copy()
    other[TEST[1:]] = 1e3
    moved[TEST[1:]] = "A"
    older.iloc[TEST[1:]] = 99.0
    again, test = HarmonisedFeatures(ArrayFeatures(other), moved, older).fold(TRAIN, TEST)
    np.testing.assert_array_equal(left, again)
    np.testing.assert_array_equal(right[0], test[0])  # nor may one test row touch another


def test_bags_are_refused() -> None:
    with pytest.raises(UserError, match=r"reads bags of samples.*--probe linear"):
        HarmonisedFeatures(ArrayFeatures(np.zeros((60, 3, 2))), np.repeat("A", 60)).fold(TRAIN, TEST)


def test_embeddings_and_baselines_are_wrapped_and_tables_are_not() -> None:
    problem, candidates = _problem()
    found = harmonised(problem, candidates, "scanner", "combat", preserve=["age"])
    assert [c.name for c in found] == ["joint", "nuisance only", "majority"]
    assert [isinstance(c.features, HarmonisedFeatures) for c in found] == [True, False, False]


def test_refusals_say_what_to_do() -> None:
    problem, candidates = _problem()
    with pytest.raises(UserError, match=r"name the column of the scanner or centre with --site"):
        harmonised(problem, candidates, None, "combat")
    with pytest.raises(UserError, match=r"with --leave-site-out a test site has no training rows.*--unseen-sites pool"):
        harmonised(problem, candidates, "scanner", "combat", leave_site_out=True)
    assert harmonised(problem, candidates, "scanner", "combat", leave_site_out=True, unseen="pool")
    with pytest.raises(UserError, match=r"preserve: 'group' is the target"):
        harmonised(problem, candidates, "scanner", "combat", preserve=["group"])
    with pytest.raises(UserError, match=r"no method 'combatt'.*combat"):
        harmonised(problem, candidates, "scanner", "combatt")
    one = replace(problem, table=problem.table.assign(scanner="A"))
    with pytest.raises(UserError, match=r"all rows have the same 'scanner'"):
        harmonised(one, candidates, "scanner", "combat")
