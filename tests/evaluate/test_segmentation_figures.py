"""Learning curves of few-label runs: names, the headline, and that every number is drawn at its place."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl4neuro.evaluate.segmentation import SegmentationRow, summarise
from ssl4neuro.evaluate.segmentation_figures import (
    COLOURS,
    budget,
    draw_learning_curves,
    learning_curve,
    learning_curves,
)
from ssl4neuro.evaluate.segmentation_results import write_segmentation_results

BUDGETS = (10, 2, 5)  # a run gives them in order, but nothing here relies on it


def row(count: int, structure: str = "MVO", phase: str = "ED", metric: str = "dice_3d") -> SegmentationRow:
    """Of every structure, phase, metric and budget another number."""
    value = 0.5 + 0.03 * count + 0.1 * (structure == "MVO") - 0.05 * (phase == "ES") - 0.3 * (metric == "dice")
    return SegmentationRow(
        f"mvo, {count} patients", False, structure, phase, metric, value, value - 0.02, value + 0.04,
        "scan" if metric == "dice" else "patient", 6 if structure == "MVO" else 12, 30, 0, "", "positives only",
    )  # fmt: skip


def run(structures: tuple[str, ...] = ("MVO", "myocardium"), metrics: tuple[str, ...] = ("dice", "dice_3d")):
    return [row(n, s, p, m) for s in structures for p in ("ED", "ES") for n in BUDGETS for m in metrics]


def scans(budgets: tuple[int, ...]) -> pd.DataFrame:
    """Four patients with three slices of one structure; more of it is found by who was trained on more."""
    lines = []
    for count in budgets:
        for subject in range(4):
            for k in range(3):
                fn = 60 // (count + subject)
                tp, fp = 60 - fn, 5 + k
                lines.append({
                    "model": f"unet, {count} patients", "baseline": False, "fold": 0, "subject": f"sub-{subject}",
                    "session": "", "run": "", "view": "sax", "slice": k, "frame": 0, "phase": "", "spacing_row": 1.5,
                    "spacing_column": 1.5, "thickness": 8.0, "structure": "LV", "positive": True, "detected": True, "tp": tp,
                    "fp": fp, "fn": fn, "dice": 2 * tp / (2 * tp + fp + fn), "jaccard": tp / (tp + fp + fn),
                    "precision": tp / (tp + fp), "recall": tp / 60, "hd95": 3.0, "hsd": 5.0, "score": 0.9,
                })  # fmt: skip
    return pd.DataFrame(lines)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mvo, 5 patients", ("mvo", 5)),
        ("mvo, 1 patient", ("mvo", 1)),
        ("unet, deep, 20 patients", ("unet, deep", 20)),
        ("motion energy threshold, 2 patients", ("motion energy threshold", 2)),
        ("mvo", None),
        ("mvo, 0 patients", None),
        ("mvo, five patients", None),
        ("mvo, 5 patients (run)", None),
        ("5 patients", None),
    ],
)
def test_names_of_few_label_models(model: str, expected: tuple[str, int] | None) -> None:
    assert budget(model) == expected


def test_a_curve_per_structure_and_phase_by_rising_budget() -> None:
    curves = learning_curves(map(asdict, run()))
    assert [(c.name, c.phase, c.n_patients) for c in curves] == [
        ("MVO", "ED", 6), ("MVO", "ES", 6), ("myocardium", "ED", 12), ("myocardium", "ES", 12),
    ]  # fmt: skip
    for curve in curves:
        wanted = [row(n, curve.name, curve.phase) for n in sorted(BUDGETS)]
        assert curve.metric == "dice_3d"
        assert curve.points == tuple((n, r.value, r.ci_low, r.ci_high) for n, r in zip(sorted(BUDGETS), wanted, strict=True))


def test_dice_of_scans_where_there_is_none_of_patients() -> None:
    rows = run(("MVO",), ("dice",)) + [replace(row(n), value=np.nan) for n in BUDGETS]
    pooled = [replace(r, convention="pooled, 0/0 = 1", value=0.99) for r in rows]
    curves = learning_curves(map(asdict, rows + pooled))
    assert {curve.metric for curve in curves} == {"dice"}
    assert [value for _, value, *_ in curves[0].points] == [row(n, metric="dice").value for n in sorted(BUDGETS)]
    bare = [{k: v for k, v in asdict(r).items() if k not in ("phase", "ci_low", "ci_high", "baseline")} for r in rows[:3]]
    (curve,) = learning_curves(bare)  # as other writers of results.json may leave them
    assert np.isnan(np.array(curve.points)[:, 2:]).all()


def test_baselines_come_last_and_by_name() -> None:
    known = [replace(row(n), model=f"motion energy, {n} patients", baseline=True) for n in BUDGETS]
    single = replace(row(2), model="always empty", baseline=True, value=0.0)
    curves = learning_curves(map(asdict, [single, *known, *run(("MVO",))]))
    assert [(curve.name, curve.baseline) for curve in curves] == [("MVO", False), ("MVO", False), ("MVO, motion energy", True)]
    other = [replace(row(n), model=f"unet, {n} patients") for n in BUDGETS]
    assert {c.name for c in learning_curves(map(asdict, run(("MVO",)) + other))} == {"MVO, mvo", "MVO, unet"}


def test_one_budget_is_no_curve(tmp_path: Path) -> None:
    rows = [row(5), row(5, phase="ES"), replace(row(5), model="mvo"), replace(row(9), value=np.nan)]
    assert learning_curves(map(asdict, rows)) == []
    assert not learning_curve(rows, tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


def drawn(axes: Axes) -> dict[str, np.ndarray]:
    """[budgets, 2] of every named line."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines if not str(line.get_label()).startswith("_")}


def test_every_number_is_drawn_at_its_place() -> None:
    known = [replace(row(n), model=f"energy, {n} patients", baseline=True, value=0.2) for n in BUDGETS]
    curves = learning_curves(map(asdict, run() + known))
    figure = Figure()
    draw_learning_curves(figure, curves, COLOURS)
    assert [axes.get_title() for axes in figure.axes] == ["ED", "ES"]
    ticks = sorted(BUDGETS)
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        assert axes.get_xticks().tolist() == ticks
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "5", "10"]
        assert axes.get_xlabel() == "training patients\nn = 12 test patients: myocardium\nn = 6 test patients: MVO"
        lines = drawn(axes)
        for name in ("MVO", "myocardium"):
            rows = [row(n, name, axes.get_title()) for n in ticks]
            np.testing.assert_allclose(lines[name][:, 1], [r.value for r in rows])
            np.testing.assert_allclose(lines[name][:, 0], ticks, rtol=0.1)  # moved aside, but nearest to its own tick
            ends = [
                line.get_ydata()
                for line in axes.lines
                if line.get_xdata()[0] in lines[name][:, 0] and len(line.get_xdata()) == 2
            ]
            np.testing.assert_allclose(ends, [[r.ci_low, r.ci_high] for r in rows])
        assert lines["MVO"][0, 0] != lines["myocardium"][0, 0]
    assert set(drawn(figure.axes[0])) - set(drawn(figure.axes[1])) == {"MVO, energy"}
    assert figure.axes[0].get_ylabel() == "Dice in 3-D per patient\nmean and 95 % interval"


def test_lines_differ_in_grey_print() -> None:
    """More structures than styles, markers or colours: still no two alike, and both phases of one alike."""
    curves = learning_curves(map(asdict, run(tuple(f"s{i}" for i in range(9)), ("dice_3d",))))
    figure = Figure()
    draw_learning_curves(figure, curves, COLOURS)
    looks = [
        {str(k.get_label()): (k._dash_pattern, k.get_marker()) for k in axes.lines if not str(k.get_label()).startswith("_")}
        for axes in figure.axes
    ]
    assert looks[0] == looks[1]
    assert len({str(look) for look in looks[0].values()}) == 9


def test_written_from_two_budgets_on(tmp_path: Path) -> None:
    for name, budgets in (("few", (2, 5)), ("one", (5,))):
        table = scans(budgets)
        write_segmentation_results(tmp_path / name, table, summarise(table, lesion=None, draws=20), record={"stamp": "seen"})
    assert (tmp_path / "few" / "learning_curve.png").stat().st_size > 5000
    assert not (tmp_path / "one" / "learning_curve.png").exists()
