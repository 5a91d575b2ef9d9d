"""Sites and nuisance variables in the probe: harmonised and residual lines, the table, the check, and the refusals."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.confounds import Confounds
from ssl4neuro.evaluate.crossval import Row
from ssl4neuro.evaluate.features import with_scan_means
from ssl4neuro.evaluate.nuisance_check import nuisance_check
from ssl4neuro.evaluate.probe import ProbeResult, probe, probe_arrays
from ssl4neuro.evaluate.residualise import SUFFIX

FAST: dict[str, Any] = {"permutations": 99, "bootstrap": 200}


def _check(result: ProbeResult) -> Check:
    return next(check for check in result.checks if check.name == "nuisance variables")


def _arrays(confounded: bool) -> dict[str, Any]:
    """60 subjects of two groups; what the features know of the group is the motion (confounded) or the group itself."""
    rng = np.random.default_rng(1)
    group = np.arange(60) % 2
    fd = rng.gamma(3, 0.05, 60) + (0.25 * group if confounded else 0)
    signal = 8 * fd if confounded else 2.0 * group
    x = rng.normal(size=(60, 8)) + signal[:, None] * (np.arange(8) < 3)
    return {"features": {"joint": x.astype(np.float32)}, "y": group, "subjects": np.arange(60), "covariates": {"mean_fd": fd}}


def test_an_answer_in_the_motion_is_flagged_and_gone_once_regressed_out() -> None:
    result = probe_arrays(**_arrays(True), nuisance=["mean_fd"], **FAST)
    assert [row.name for row in result.rows if row.metric == "AUC"] == ["joint", "joint" + SUFFIX, "nuisance only", "majority"]
    assert result.row("joint").p < 0.05
    assert result.row("joint" + SUFFIX).p > 0.05
    assert not result.row("joint" + SUFFIX).baseline
    check = _check(result)
    assert check.status == "flagged"
    assert check.detail.startswith("mean_fd alone give AUC 0.9")
    assert "with them regressed out AUC" in check.detail
    assert any(note.startswith("nuisance-only mean_fd alone") for note in result.notes)


def test_an_answer_of_its_own_passes_and_stays() -> None:
    result = probe_arrays(**_arrays(False), nuisance=["mean_fd"], **FAST)
    assert _check(result).status == "passed"
    assert result.row("joint" + SUFFIX).value > 0.85
    assert not any("nuisance-only" in note for note in result.notes)


def test_without_nuisance_columns_it_is_not_checkable() -> None:
    given = _arrays(False)
    del given["covariates"]
    assert _check(probe_arrays(**given, **FAST)).status == "not checkable"


def test_site_effects_hide_the_answer_until_they_are_harmonised() -> None:
    rng = np.random.default_rng(2)
    site, group = np.arange(80) % 4, np.arange(80) // 4 % 2
    x = rng.normal(size=(80, 6)) + 8 * rng.normal(size=(4, 6))[site] + 0.9 * group[:, None]
    given: dict[str, Any] = {"y": group, "subjects": np.arange(80), "sites": np.array(list("ABCD"))[site], **FAST}
    plain = probe_arrays({"joint": x}, **given)
    combat = probe_arrays({"joint": x}, **given, harmonise="combat")
    assert combat.row("joint").value > max(plain.row("joint").value, 0.9)
    table = combat.tables["site_decodability"].set_index("features")
    assert table.loc["as given", "value"] > 0.95
    assert table.loc["harmonised", "value"] < 0.65
    assert combat.settings["confounds"]["harmonise"] == "combat"
    with pytest.raises(UserError, match=r"--unseen-sites pool"):
        probe_arrays({"joint": x}, **given, harmonise="combat", leave_site_out=True)
    pooled = probe_arrays({"joint": x}, **given, harmonise="combat", leave_site_out=True, unseen_sites="pool")
    assert pooled.row("joint").n_subjects == 80


def test_the_probe_of_a_folder(tiny: SimpleNamespace, tmp_path: Path) -> None:
    options: dict[str, Any] = {"allow_overlap": True, "permutations": 19, "bootstrap": 100}
    result = probe(
        tiny.path, target="state", out=tmp_path / "r", site="scanner", harmonise="combat", preserve=["age"],
        nuisance=["sex", "mean_fd"], **options,
    )  # fmt: skip
    names = list(dict.fromkeys(row.name for row in result.rows))
    assert names[:3] == ["joint", "joint" + SUFFIX, "FNC + logistic"]
    assert (tmp_path / "r" / "site_decodability.tsv").is_file()
    assert set(result.tables["site_decodability"]["model"]) >= {"joint", "FNC + logistic", "PCA + logistic"}
    with pytest.raises(UserError, match=r"nuisance: no column 'motion'"):
        probe(tiny.path, target="state", out=None, nuisance=["motion"], **options)


def test_options_belong_together() -> None:
    with pytest.raises(UserError, match=r"^preserve: belongs to --harmonise combat"):
        Confounds(preserve=("age",))
    with pytest.raises(UserError, match=r"^unseen-sites: belongs to --harmonise combat"):
        Confounds(unseen_sites="pool")


def _row(name: str, value: float, p: float | None, baseline: bool = True) -> Row:
    return Row(name, baseline, "AUC", value, value - 0.1, value + 0.1, p, 0.5, 40, 40, "subject")


def test_when_the_check_speaks() -> None:
    strong, weak = _row("joint", 0.8, 0.001, False), _row("joint", 0.52, 0.4, False)
    cases = [
        (strong, 0.7, 0.01, "flagged"),
        (strong, 0.55, 0.3, "passed"),
        (strong, 0.85, 0.06, "flagged"),
        (weak, 0.56, 0.3, "passed"),
    ]
    for embedding, value, p, expected in cases:
        assert nuisance_check([embedding, _row("nuisance only", value, p)], ["age"])[0].status == expected
    untested = [_row("joint", 0.8, None, False), _row("nuisance only", 0.65, None)]  # without permutations the interval decides
    assert nuisance_check(untested, ["age"])[0].status == "flagged"
    quality = _row("course quality + logistic", 0.9, 0.001)
    check, notes = nuisance_check([strong, quality], [])
    assert check.status == "not checkable"
    assert notes[0].startswith("whole-brain averages of the courses alone give AUC 0.90")
    assert nuisance_check([_row("joint", 0.95, 0.001, False), quality], [])[1] == []


def test_a_subject_has_the_mean_motion_of_its_scans() -> None:
    scans = pd.DataFrame({"subject": ["a", "b", "a"], "mean_fd": [0.1, 0.5, 0.3], "state": ["pre", "pre", "post"]})
    subjects = pd.DataFrame({"subject": ["b", "a"], "age": [1, 2]})
    table = with_scan_means(subjects, scans, ["mean_fd", "state", "age", "tsnr"], "diagnosis")
    assert table.columns.tolist() == ["subject", "age", "mean_fd"]
    assert table["mean_fd"].tolist() == [0.5, 0.2]
    assert "mean_fd" not in with_scan_means(subjects, scans, ["mean_fd"], "mean_fd")


def test_names_may_be_given_with_commas_or_spaces() -> None:
    from ssl4neuro.cli.evaluate import names_of

    assert names_of(("age,sex", "mean_fd")) == ("age", "sex", "mean_fd")


@pytest.mark.parametrize("names", [[1, 2, 3], ["A", "B", "C"]])
def test_a_site_is_a_name_also_where_it_is_written_as_a_number(names: list[Any]) -> None:
    rng = np.random.default_rng(0)
    place = np.arange(90) % 3
    y = ((place == 1) ^ (rng.random(90) < 0.1)).astype(int)  # the label goes with the middle site
    x = rng.normal(size=(90, 6)) + 3.0 * (place == 1)[:, None] * (np.arange(6) < 3)
    result = probe_arrays(
        {"joint": x.astype(np.float32)},
        y,
        np.arange(90),
        covariates={"site": np.array(names)[place]},
        nuisance=["site"],
        **FAST,
    )
    assert result.row("nuisance only").value > 0.85
    assert result.row("joint" + SUFFIX).value < 0.75
    assert _check(result).status == "flagged"


def test_sites_of_a_travelling_subject_are_not_averaged() -> None:
    table = pd.DataFrame({"subject": ["a", "b"]})
    scans = pd.DataFrame({"subject": ["a", "a", "b", "b"], "site": [1, 3, 2, 2], "mean_fd": [0.1, 0.3, 0.2, 0.2]})
    found = with_scan_means(table, scans, ["site", "mean_fd"], "dx")
    assert "site" not in found
    assert found["mean_fd"].tolist() == pytest.approx([0.2, 0.2])
