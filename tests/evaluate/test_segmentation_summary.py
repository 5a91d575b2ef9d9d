"""The six reporting rules against naive loops and planted tables, and what is written of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segmentation import ALWAYS_EMPTY, SegmentationRow, patients, summarise
from ssl4neuro.evaluate.segmentation_results import read_scans, render, write_segmentation_results
from ssl4neuro.evaluate.segmentation_scores import score_scan

STRUCTURES = {"myocardium": (1, 2), "MVO": (2,)}
SPACING = (1.5, 1.2)


def picture(rng: np.random.Generator, radius: float, lesion: float, blur: float) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities, by noise about a ring with a lesion of `lesion` radians, and the ring's classes."""
    rows, columns = np.indices((24, 24)) - 11.5
    distance, angle = np.hypot(rows, columns), np.abs(np.arctan2(rows, columns))
    ring = (distance > radius - 2.5) & (distance < radius)
    truth = np.where(ring, np.where(angle < lesion / 2, 2, 1), 0).astype(np.uint8)
    logits = 3 * np.eye(3)[truth].transpose(2, 0, 1) + blur * rng.normal(size=(3, 24, 24))
    if lesion == 0:
        logits[2] -= 2
    return np.exp(logits) / np.exp(logits).sum(0), truth


def table(models: dict[str, float], subjects: int = 8, slices: int = 4, spaced: bool = True, phases=("",)) -> pd.DataFrame:
    """Odd subjects have a lesion in half of their slices."""
    lines = []
    for subject in range(subjects):
        for number in range(slices):
            for phase in phases:
                size = 1.2 + 0.1 * subject if subject % 2 and number < slices // 2 else 0.0
                for model, blur in models.items():
                    rng = np.random.default_rng([subject, number, len(model)])
                    probabilities, truth = picture(rng, 7 + 0.3 * subject - 2 * (phase == "ES"), size, blur)
                    predicted = probabilities.argmax(0).astype(np.uint8)
                    place = {
                        "model": model, "baseline": model != "ours", "fold": subject % 2, "subject": f"sub-{subject}",
                        "session": "", "run": "", "view": "sax", "slice": number, "frame": 8 * (phase == "ES"), "phase": phase,
                        "spacing_row": SPACING[0] if spaced else np.nan, "spacing_column": SPACING[1] if spaced else np.nan,
                        "thickness": 8.0 if spaced else np.nan,
                    }  # fmt: skip
                    scores = score_scan(predicted, truth, probabilities, STRUCTURES, SPACING if spaced else None, None)
                    lines += [place | line for line in scores]
    return pd.DataFrame(lines)


@pytest.fixture(scope="module")
def scans() -> pd.DataFrame:
    return table({"U-Net": 2.0, "ours": 1.3})


@pytest.fixture(scope="module")
def rows(scans: pd.DataFrame) -> list[SegmentationRow]:
    return summarise(scans, lesion="MVO", draws=300)


def pick(rows: list[SegmentationRow], metric: str, model: str = "ours", **wanted: str) -> SegmentationRow:
    wanted = {"structure": "MVO", "metric": metric, "model": model} | wanted
    found = [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def test_the_always_empty_mask() -> None:
    """`methods/mvo.md` section 10, test 8, in the numbers of the published test set: 64 of 115 scans show nothing."""
    ring = table({"ours": 0.5}, 1, 1)
    ring = ring[ring["structure"] == "MVO"]
    shown = {"positive": True, "fn": 9, "dice": 0.0, "jaccard": 0.0, "recall": 0.0}
    lines = [ring.assign(subject=f"s{i // 4}", slice=i % 4, **(shown if i < 51 else {})) for i in range(115)]
    rows = summarise(pd.concat(lines, ignore_index=True), lesion="MVO", draws=200)
    assert pick(rows, "dice", ALWAYS_EMPTY, convention="positives only").value == 0
    assert pick(rows, "dice", ALWAYS_EMPTY, convention="pooled, 0/0 = 1").value == pytest.approx(64 / 115)
    assert pick(rows, "dice", ALWAYS_EMPTY, convention="positives only").n_units == 51
    assert pick(rows, "specificity", ALWAYS_EMPTY, unit="scan").value == 1
    assert pick(rows, "auc", ALWAYS_EMPTY, unit="scan").value == 0.5
    distance = pick(rows, "hd95", ALWAYS_EMPTY)
    assert (distance.n_units, distance.dropped) == (0, 51)
    assert np.isnan(distance.value)
    assert all(row.baseline for row in rows if row.model == ALWAYS_EMPTY)


def test_scan_metrics_equal_the_naive_loop(scans: pd.DataFrame, rows: list[SegmentationRow]) -> None:
    mine = scans[(scans["model"] == "ours") & (scans["structure"] == "MVO")].to_dict("records")
    for metric in ("dice", "jaccard", "precision", "recall", "hd95", "hsd"):
        values = [line[metric] for line in mine if line["positive"]]
        row = pick(rows, metric, convention="positives only")
        assert row.value == pytest.approx(np.nanmean(values))
        assert (row.n_units, row.dropped) == (np.isfinite(values).sum(), np.isnan(values).sum())
        assert row.ci_low <= row.value <= row.ci_high
        assert row.measure_unit == ("mm" if metric in ("hd95", "hsd") else "")
    pooled = [line["dice"] if line["positive"] or line["detected"] else 1 for line in mine]
    assert pick(rows, "dice", convention="pooled, 0/0 = 1").value == pytest.approx(np.mean(pooled))
    negatives = [line for line in mine if not line["positive"]]
    area = pick(rows, "false_positive_area")
    assert (area.value, area.measure_unit) == (pytest.approx(np.mean([line["area"] for line in negatives])), "mm2")
    assert area.n_units == len(negatives)


def test_patients_and_detection_equal_the_naive_loop(scans: pd.DataFrame, rows: list[SegmentationRow]) -> None:
    mine = scans[(scans["model"] == "U-Net") & (scans["structure"] == "MVO")]
    dice, true, found, positive, detected, score = [], [], [], [], [], []
    for _, own in mine.groupby("subject"):
        tp, fp, fn = own["tp"].sum(), own["fp"].sum(), own["fn"].sum()
        dice.append(2 * tp / (2 * tp + fp + fn) if tp + fn else np.nan)
        true.append((tp + fn) * 1.5 * 1.2 * 8 / 1000)
        found.append((tp + fp) * 1.5 * 1.2 * 8 / 1000)
        positive.append(tp + fn > 0)
        detected.append(tp + fp > 0)
        score.append(own["score"].max())
    sick, difference = np.array(positive), np.array(found) - np.array(true)
    assert pick(rows, "dice_3d", "U-Net").value == pytest.approx(np.nanmean(dice))
    assert pick(rows, "sensitivity", "U-Net", unit="patient").value == np.array(detected)[sick].mean()
    assert pick(rows, "specificity", "U-Net", unit="patient").value == 1 - np.array(detected)[~sick].mean()
    assert pick(rows, "auc", "U-Net", unit="patient").value == pytest.approx(roc_auc_score(positive, score))
    assert pick(rows, "auc", "U-Net", unit="scan").value == pytest.approx(roc_auc_score(mine["positive"], mine["score"]))
    bias, low = pick(rows, "volume_bias", "U-Net"), pick(rows, "volume_limit_low", "U-Net")
    assert (bias.value, bias.measure_unit, bias.n_units) == (pytest.approx(difference.mean()), "ml", 8)
    assert low.value == pytest.approx(difference.mean() - 1.96 * difference.std(ddof=1))
    assert pick(rows, "volume_limit_high", "U-Net").value == pytest.approx(2 * bias.value - low.value)
    assert pick(rows, "volume_correlation", "U-Net").value == pytest.approx(np.corrcoef(true, found)[0, 1])


def test_which_numbers_there_are(scans: pd.DataFrame, rows: list[SegmentationRow]) -> None:
    models = [
        row.model for row in rows if row.metric == "dice" and row.structure == "MVO" and row.convention == "positives only"
    ]
    assert models == ["ours", "U-Net", ALWAYS_EMPTY]
    muscle = {row.metric for row in rows if row.structure == "myocardium"}
    assert {"dice", "dice_3d", "hd95", "volume_bias"} <= muscle
    assert not muscle & {"auc", "sensitivity", "false_positive_area"}
    anatomy = summarise(scans, lesion=None, draws=0)
    assert not [row for row in anatomy if row.model == ALWAYS_EMPTY or row.convention.startswith("pooled")]
    own = scans.assign(model=scans["model"].replace("U-Net", ALWAYS_EMPTY))
    assert pick(summarise(own, lesion="MVO", draws=0), "recall", ALWAYS_EMPTY).value > 0  # the caller's is kept
    with pytest.raises(UserError, match="did you mean 'MVO'"):
        summarise(scans, lesion="MV0")
    with pytest.raises(UserError, match="no column 'thickness'"):
        summarise(scans.drop(columns="thickness"), lesion=None)


def test_phases_and_repeated_frames_stay_apart() -> None:
    scans = table({"ours": 0.8}, 3, 2, phases=("ED", "ES"))
    found = patients(scans)
    muscle = found[found["structure"] == "myocardium"].set_index(["subject", "phase"])
    assert (muscle.loc[("sub-0", "ED"), "volume_true"] > muscle.loc[("sub-0", "ES"), "volume_true"]).all()
    rows = summarise(scans, lesion=None, draws=50)
    assert {(row.structure, row.phase) for row in rows if row.metric == "dice_3d" and row.n_units} == {
        ("myocardium", "ED"), ("myocardium", "ES"), ("MVO", "ED"), ("MVO", "ES"),
    }  # fmt: skip
    merged = patients(scans.assign(phase=""))  # two frames of each slice: a heart is not twice as large
    volume = merged[merged["structure"] == "myocardium"].set_index("subject")["volume_true"]["sub-0"]
    both = [muscle.loc[("sub-0", phase), "volume_true"] for phase in ("ED", "ES")]
    assert volume == pytest.approx(np.mean(both))


def test_units_without_spacing_or_slice_distance(scans: pd.DataFrame) -> None:
    bare = table({"ours": 1.3}, 4, 2, spaced=False)
    rows = summarise(bare, lesion="MVO", draws=0)
    assert pick(rows, "hd95").measure_unit == pick(rows, "false_positive_area").measure_unit == "px"
    assert pick(rows, "volume_bias").measure_unit == "px"
    flat = patients(scans.assign(thickness=np.nan))
    known = patients(scans)
    assert set(flat["volume_unit"]) == {"cm2"}
    np.testing.assert_allclose(flat["volume"] * 0.8, known["volume"])  # slices are 8 mm apart
    mixed = scans.assign(spacing_row=scans["spacing_row"].where(scans["subject"] != "sub-1"))
    row = pick(summarise(mixed, lesion="MVO", draws=0), "hd95")
    lost = scans[(scans["subject"] == "sub-1") & (scans["model"] == "ours") & scans["positive"] & (scans["structure"] == "MVO")]
    full = pick(summarise(scans, lesion="MVO", draws=0), "hd95")
    assert row.measure_unit == "mm"
    assert row.dropped == full.dropped + np.isfinite(lost["hd95"]).sum()


def test_a_patient_with_two_visits_is_one_patient() -> None:
    first = table({"ours": 1.3})
    second = first.assign(session="ses-2", positive=False, detected=False, tp=0, fp=0, fn=0, score=0.0)
    once, twice = (summarise(scans, lesion="MVO", draws=50) for scans in (first, pd.concat([first, second])))
    for metric in ("sensitivity", "specificity", "auc"):
        a, b = (pick(rows, metric, unit="patient") for rows in (once, twice))
        assert (a.value, a.n_units) == (b.value, b.n_units)


def test_intervals_resample_patients(scans: pd.DataFrame) -> None:
    """Every scan ten times over is the same patients: nothing is known better. Resampling scans would narrow it threefold."""
    copies = pd.concat([scans.assign(slice=scans["slice"] + 100 * i) for i in range(10)], ignore_index=True)
    once, tenfold = summarise(scans, lesion="MVO", draws=400), summarise(copies, lesion="MVO", draws=400)
    for metric, wanted in (
        ("dice", {"convention": "positives only"}),
        ("specificity", {"unit": "scan"}),
        ("auc", {"unit": "scan"}),
    ):
        a, b = pick(once, metric, **wanted), pick(tenfold, metric, **wanted)
        assert b.value == pytest.approx(a.value)
        assert (a.n_patients, 10 * a.n_units) == (b.n_patients, b.n_units)
        assert b.ci_high - b.ci_low == pytest.approx(a.ci_high - a.ci_low, rel=1e-6)
        assert a.ci_high > a.ci_low


def test_the_results_folder(tmp_path: Path, scans: pd.DataFrame, rows: list[SegmentationRow]) -> None:
    out = tmp_path / "results"
    record = {
        "name": "phantom",
        "notes": ["a note"],
        "settings": {"seed": 0},
        "nested": {"rate": float("nan")},
        "stamp": "seen",
    }
    write_segmentation_results(out, scans, rows, record=record)
    write_segmentation_results(out, scans, rows, record=record)  # an older one is replaced
    kept = json.loads((out / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (kept["format"], kept["kind"], kept["settings"]["nested"]) == ("ssl4neuro results", "segmentation", {"rate": None})
    assert (kept["notes"][0], kept["stamp"], kept["settings"]["seed"]) == ("a note", "seen", 0)
    assert "STAMP seen" in (out / "table.md").read_text()
    assert len(kept["rows"]) == len(rows)
    assert [r["value"] for r in kept["rows"] if r["metric"] == "hd95" and r["model"] == ALWAYS_EMPTY] == [None]
    files = {"results.json", "scans.tsv", "patients.tsv", "table.csv", "table.md"}
    assert {p.name for p in out.iterdir()} == files | {"estimates.png", "bland_altman.png", "detection.png"}
    assert all((out / name).stat().st_size > 5000 for name in ("estimates.png", "bland_altman.png", "detection.png"))
    again = summarise(read_scans(out), lesion="MVO", draws=300)
    assert [(row.model, row.metric, row.n_units) for row in again] == [(row.model, row.metric, row.n_units) for row in rows]
    np.testing.assert_allclose([row.value for row in again], [row.value for row in rows])
    with pytest.raises(UserError, match="missing"):
        read_scans(tmp_path)


def test_the_terminal_table_puts_the_pooled_convention_last(rows: list[SegmentationRow]) -> None:
    text = render(rows)
    assert max(map(len, text.splitlines())) <= 128
    block = text[text.index("\nMVO\n") :]
    assert block.index("overlap, positives only") < block.index("detection by scan") < block.index("pooled convention")
    last = block[block.index("pooled convention") :].splitlines()
    assert [line.split()[0] for line in last[2:5]] == ["ours", "U-Net", "always"]
