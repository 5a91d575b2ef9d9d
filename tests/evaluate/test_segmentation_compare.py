"""Two models on the same scans: closed forms, and how often nothing is taken for something."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segmentation_compare import compare, render, sign_flip_p, wilcoxon_p


def table(model: str, dice: np.ndarray, subjects: np.ndarray, positive: np.ndarray | None = None) -> pd.DataFrame:
    """A line per scan."""
    n = len(dice)
    whole = np.ones(n, dtype=bool) if positive is None else positive
    fixed = {"baseline": False, "fold": 0, "session": "", "run": "", "view": "", "frame": 0, "phase": "", "structure": "MVO"}
    frame = pd.DataFrame({"model": model, "subject": subjects, "slice": np.arange(n), "dice": dice, "positive": whole} | fixed)
    for name in ("spacing_row", "spacing_column", "thickness", "jaccard", "precision", "recall", "hd95", "hsd", "score"):
        frame[name] = np.nan
    return frame.assign(detected=True, tp=(50 * dice).round(), fp=7.0, fn=np.where(whole, 50 - (50 * dice).round(), 0))


def clustered(
    rng: np.random.Generator, patients: int, scans: int, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences share a patient's effect: no difference on average where `gain` is 0."""
    subjects = np.repeat([f"s{i:02d}" for i in range(patients)], scans)
    effect = np.repeat(rng.normal(size=patients) * 0.1, scans)
    base = np.clip(0.5 + 0.1 * rng.normal(size=len(subjects)), 0, 1)
    return base + gain + effect + 0.05 * rng.normal(size=len(subjects)), base, subjects


@pytest.mark.parametrize("unit", ["patient", "scan"])
def test_equals_the_plain_loop(unit: str) -> None:
    rng = np.random.default_rng(0)
    subjects = np.array(["a"] * 2 + ["b"] * 5 + ["c"] * 3 + ["d"] * 4 + ["e"] * 6)
    ours, theirs = rng.random(20), rng.random(20)
    positive = rng.random(20) < 0.8
    b = table("theirs", theirs, subjects, positive).assign(tp=(50 * ours).round())  # the same truth
    b["fn"] = table("ours", ours, subjects, positive)["fn"]
    order = rng.permutation(20)
    found = compare(table("ours", ours, subjects, positive), b.iloc[order], structure="MVO", unit=unit, draws=500)
    own = [(ours - theirs)[positive & (subjects == s)] for s in "abcde"]
    sums = np.array([d.mean() if unit == "patient" else d.sum() for d in own])
    size = 5 if unit == "patient" else positive.sum()
    assert found.difference == pytest.approx(sums.sum() / size)
    assert found.difference == pytest.approx(found.mean_a - found.mean_b)
    flips = [abs(sum(s * d for s, d in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=5)]
    assert found.p_permutation == pytest.approx(np.mean([f >= abs(sums.sum()) - 1e-12 for f in flips]))
    assert found.exact
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon([d.mean() for d in own]).pvalue)
    assert found.p_wilcoxon_scans == pytest.approx(stats.wilcoxon((ours - theirs)[positive]).pvalue)
    assert (found.n_patients, found.n_scans, found.dropped) == (5, positive.sum(), 0)
    assert found.ci_low < found.difference < found.ci_high
    assert "optimistic" in render(found)


def test_false_alarms_of_the_tests_on_clustered_scans() -> None:
    """500 data sets without any difference: 5 % of the permutation tests may say otherwise; over scans far more do."""
    rng = np.random.default_rng(1)
    alarms = np.zeros((500, 2))
    for number in range(500):
        ours, theirs, _ = clustered(rng, 10, 8)
        gain = (ours - theirs).reshape(10, 8)
        alarms[number] = sign_flip_p(gain.mean(1), 999, number)[0] <= 0.05, wilcoxon_p(gain.ravel()) <= 0.05
    by_patient, by_scan = alarms.mean(0)
    assert 0.03 <= by_patient <= 0.075
    assert by_scan > 0.25


def test_a_difference_is_found_and_random_flips_agree_with_all() -> None:
    rng = np.random.default_rng(2)
    ours, theirs, subjects = clustered(rng, 20, 6, gain=0.15)
    a, b = table("ours", ours, subjects), table("theirs", theirs, subjects).assign(tp=0.0)
    b["fn"] = a["tp"] + a["fn"]
    found = compare(a, b, structure="MVO", draws=500, permutations=1999)
    assert not found.exact
    assert found.p_permutation == pytest.approx(1 / 2000, abs=2e-3)
    assert found.ci_low > 0
    again = compare(b, a, structure="MVO", draws=500, permutations=1999)
    assert (again.difference, again.p_permutation) == (pytest.approx(-found.difference), found.p_permutation)
    gain = rng.normal(size=12) + 0.4
    drawn = np.random.default_rng(0).choice([-1.0, 1.0], (20_000, 12)) @ gain
    assert sign_flip_p(gain, 0, 0)[0] == pytest.approx(np.mean(np.abs(drawn) >= abs(gain.sum())), abs=0.01)
    same = compare(a, a.assign(model="copy"), structure="MVO", draws=50)
    assert (same.difference, same.p_permutation, same.p_wilcoxon, same.p_wilcoxon_scans) == (0, 1, 1, 1)


def test_three_dimensional_dice_and_undefined_scans() -> None:
    ours, theirs, subjects = clustered(np.random.default_rng(3), 4, 3)
    a, b = table("ours", ours, subjects), table("theirs", theirs, subjects)
    b["tp"], b["fn"] = b["tp"] - 5, a["tp"] + a["fn"] - (b["tp"] - 5)
    found = compare(a, b, structure="MVO", metric="dice_3d", draws=50)
    sums = [t.groupby("subject")[["tp", "fp", "fn"]].sum() for t in (a, b)]
    means = [(2 * s["tp"] / (2 * s["tp"] + s["fp"] + s["fn"])).mean() for s in sums]
    assert (found.mean_a, found.mean_b) == (pytest.approx(means[0]), pytest.approx(means[1]))
    assert found.n_scans == 4
    a["hd95"], b["hd95"] = 3.0, 5.0
    b.loc[2, "hd95"] = np.nan
    near = compare(a, b, structure="MVO", metric="hd95", draws=0)
    assert (near.dropped, near.n_scans, near.difference, near.lower_is_better) == (1, 11, -2, True)
    with pytest.raises(UserError, match="undefined for one of the models"):
        compare(a, b, structure="MVO", metric="hsd")


def test_refuses_what_cannot_be_paired() -> None:
    ours, _, subjects = clustered(np.random.default_rng(4), 3, 4)
    a, b = table("ours", ours, subjects), table("theirs", ours, subjects)
    with pytest.raises(UserError, match=r"subject s01, slice 5, frame 0: not among the scans of 'theirs' \(2 missing\)"):
        compare(a, b.drop([5, 9]), structure="MVO")
    with pytest.raises(UserError, match="not among the scans of 'ours'"):
        compare(a.drop(3), b, structure="MVO")
    with pytest.raises(UserError, match=r"slice 7.*different masks"):
        compare(a, b.assign(fn=b["fn"] + (b["slice"] == 7)), structure="MVO")
    with pytest.raises(UserError, match="holds 2 models"):
        compare(pd.concat([a, b]), b, structure="MVO")
    with pytest.raises(UserError, match="did you mean 'dice'"):
        compare(a, b, structure="MVO", metric="dise")
    with pytest.raises(UserError, match="no structure 'mvo'"):
        compare(a, b, structure="mvo")
