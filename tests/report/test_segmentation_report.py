"""The report of a fine-tuned head: from folders as `finetune` leaves them, whole or not, to one page without network."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.report import figures, segmentation_figures, write_report

CONFIG: dict[str, Any] = {
    "head": {"name": "mvo", "preset": "mvo_tiny"},
    "classes": {"myocardium": 1, "MVO": 2},
    "encoders": {"cine": {"name": "frame"}, "motion": {"name": "frame"}},
    "structures": {"myocardium": ["myocardium", "MVO"], "MVO": ["MVO"]},
    "lesion": "MVO",
    "data": "/secret/hospital/cohorts/infarct",
    "out": "/secret/hospital/runs/mvo",
    "init": "/secret/hospital/runs/cine_contrastive",
    "clip": {"frames": 10},
    "loss": {"alpha": 0.95, "cross_entropy": 0.5, "first": 0.4},
    "folds": 2,
    "optimiser": {"name": "adamw", "rate": 0.001, "weight_decay": 0.0003, "schedule": "cosine"},
    "sampling": {"batch_size": 8},
    "seed": 3,
}
ENVIRONMENT = {"seed": 3, "device": "cpu", "versions": {"ssl4neuro": "0.1.0", "torch": "2.15"}}
CONTRACT = {"cine": {"kind": "clip", "channels": [1], "spacing": [1.4, 1.8]}}


class Page(HTMLParser):
    """What a browser would see: tags, addresses, alternative texts, visible text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [str(values[k]) for k in ("src", "href", "xlink:href", "srcset", "data", "poster") if k in values]
        if tag == "img":
            self.alts.append(values.get("alt") or "")
        if values.get("role") == "img":
            self.alts.append(values.get("aria-label") or "")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.text += data + " "


def scans(patients: int = 12, models: tuple[str, ...] = ("mvo",)) -> pd.DataFrame:
    """Scores as `evaluate.held_out` makes them: every other patient has a lesion, and the middle one's is missed."""
    rng = np.random.default_rng(0)
    lines = []
    for model in (*models, "motion energy threshold"):
        skill = 0.4 if model == "motion energy threshold" else 0.8
        for p in range(patients):
            for k in range(3):
                for structure in ("myocardium", "MVO"):
                    real = int(rng.integers(60, 120)) if structure == "myocardium" else int(p % 2 == 0) * 20
                    missed = structure == "MVO" and p == 6
                    tp = 0 if missed else int(real * np.clip(skill + 0.1 * rng.standard_normal(), 0.05, 1))
                    fp = int(rng.integers(0, 8)) if real and not missed else int(structure == "MVO" and p == 3 and k == 1) * 9
                    fn = real - tp
                    whole = 2 * tp + fp + fn
                    hit = bool(tp + fp) and real > 0
                    lines.append({
                        "model": model, "baseline": model == "motion energy threshold", "fold": p % 2,
                        "subject": f"sub-{p:02d}",
                        "session": "", "run": "", "view": "sax", "slice": k, "frame": 0, "phase": "", "spacing_row": 1.5,
                        "spacing_column": 1.5, "thickness": 8.0, "structure": structure, "positive": real > 0,
                        "detected": tp + fp > 0, "tp": tp, "fp": fp, "fn": fn, "dice": 2 * tp / whole if whole else np.nan,
                        "jaccard": tp / (tp + fp + fn) if whole else np.nan, "precision": tp / (tp + fp) if tp + fp else np.nan,
                        "recall": tp / real if real else np.nan, "hd95": 4.5 if hit else np.nan, "hsd": 7.0 if hit else np.nan,
                        "area_true": real * 2.25, "area": (tp + fp) * 2.25, "uncertainty": 0.3,
                        "score": float(np.clip(skill * (real > 0) + 0.3 * rng.random(), 0, 1)),
                    })  # fmt: skip
    return pd.DataFrame(lines)


def write_training(folder: Path, config: dict[str, Any] = CONFIG, *, finished: bool = True, validation: bool = True) -> Path:
    from ssl4neuro.train.run import Run

    run = Run(folder)
    held = ["sub-alice"] if validation else []
    run.create(config, ENVIRONMENT, {"train": ["sub-bob", "sub-carol"], "validation": held, "holdout": ["sub-dave"]})
    for step in range(10, 110, 10):
        run.log(step=step, epoch=step // 50, split="train", loss=2 - step / 100, dice_loss=1.0, lr=1e-3, data_wait=0.01)
        if validation and step % 50 == 0:
            run.log(step=step, epoch=step // 50, split="validation", loss=1.2, signal=step / 250, **{"dice/MVO": step / 250})
    saved = folder / "checkpoints" / "step-00000100"
    saved.mkdir(parents=True)
    (saved / "contract.json").write_text(json.dumps(CONTRACT))
    (folder / "checkpoints" / "best.json").write_text('{"step": 100}')
    if finished:
        run.summarise(steps=100, seconds=30.0, alarms=[])
    return folder


def write_results(run: Path, table: pd.DataFrame, pictures: int = 3, stamp: str = "") -> Path:
    """By the library's own writers, but for figures that the page does not take; and pictures of a beating disc."""
    from ssl4neuro.data.animation import write_gif
    from ssl4neuro.evaluate.overlays import Case, animate_case, draw_case, failures_first
    from ssl4neuro.evaluate.segmentation import patients, summarise
    from ssl4neuro.evaluate.segmentation_results import results_record

    out = run / "results"
    (out / "overlays").mkdir(parents=True)
    record = results_record(summarise(table, lesion="MVO", draws=50), {"lesion": "MVO", "cohort": "infarct"})
    (out / "results.json").write_text(json.dumps(record | {"stamp": stamp}))
    table.to_csv(out / "scans.tsv", sep="\t", index=False)
    patients(table).to_csv(out / "patients.tsv", sep="\t", index=False)
    y, x = np.mgrid[:64, :64]
    distance = np.hypot(y - 32, x - 32)
    ring = ((distance > 10) & (distance < 16)).astype(np.uint8)
    lesion = np.where((x > 40) & (ring > 0), 2, ring).astype(np.uint8)
    frames = np.stack([(distance < 11 - 3 * np.sin(np.pi * t / 6)) * 160.0 + 20 * (distance < 16) + distance for t in range(6)])
    lines = []
    for number, line in enumerate(failures_first(table, "MVO", most=pictures).to_dict("records"), start=1):
        answer, doubt = ring if line["area"] == 0 else lesion, np.clip(1 - np.abs(distance - 13) / 5, 0, 1)
        case = Case(
            f"{line['subject']}: {line['why']}", frames, 0, answer, lesion, doubt, ("background", "myocardium", "MVO"), 0.04,
            f"Dice {line['dice']:.2f}", (1.5, 1.5),
        )  # fmt: skip
        draw_case(case, out / "overlays" / f"{number:02d}.png")
        moving = f"{number:02d}.gif" if number == 1 else ""
        if moving:
            write_gif(animate_case(case), out / "overlays" / moving, 0.04)
        place = {key: line[key] for key in ("subject", "session", "slice", "frame", "why")}
        lines.append({"file": f"{number:02d}.png", "animation": moving, "note": case.note, **place})
    pd.DataFrame(lines).to_csv(out / "overlays" / "index.tsv", sep="\t", index=False)
    return out


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two folds."""
    run = tmp_path_factory.mktemp("runs") / "mvo"
    for k in (0, 1):
        write_training(run / f"fold-{k}")
    from ssl4neuro.train.run import Run

    Run(run).create(CONFIG, ENVIRONMENT, {})
    write_results(run, scans())
    return run


@pytest.fixture(scope="module")
def page(folds: Path) -> Page:
    return Page(write_report(folds))


def without_pictures(source: str) -> str:
    return re.sub(r"data:image/(png|gif);base64,[A-Za-z0-9+/=]+", "data:", source)


def rows(folds: Path) -> list[dict[str, Any]]:
    return json.loads((folds / "results" / "results.json").read_text())["rows"]


def find(folds: Path, **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows(folds) if all(row[key] == value for key, value in wanted.items()))


def test_the_answer_stands_first_with_interval_n_and_the_strongest_baseline(folds: Path, page: Page) -> None:
    place = {"structure": "MVO", "metric": "dice", "convention": "positives only"}
    own, motion = find(folds, model="mvo", **place), find(folds, model="motion energy threshold", **place)
    assert "Segmentation of MVO" in page.text
    assert (
        f"mean Dice of {own['value']:.2f} (95 % CI {own['ci_low']:.2f} to {own['ci_high']:.2f}; 18 scans of 6 patients)"
        in page.text
    )
    assert f"strongest baseline, 'motion energy threshold', reaches {motion['value']:.2f}" in page.text
    sensitivity = find(folds, model="mvo", structure="MVO", metric="sensitivity", unit="patient")
    assert f"It detects MVO by patient with sensitivity {sensitivity['value']:.2f}" in page.text


def test_notices_say_why_numbers_are_less_certain_than_they_look(page: Page) -> None:
    assert "Only 6 test patients show MVO" in page.text
    assert "HD95 of MVO leaves out 3 of 18 scans" in page.text
    assert "counts an empty prediction on a scan without lesion as Dice 1" in page.text
    assert "No patient was tested by a head or an encoder that had seen them" in page.text


def test_the_first_table_has_the_own_model_first_and_no_pooled_number(page: Page, folds: Path) -> None:
    body = re.search(r"<h2[^>]*>Results</h2>.*?<tbody>(.*?)</tbody>", page.source, re.S)
    assert body
    lines = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr.*?</tr>", body[1], re.S)]
    assert [line[:2] for line in lines] == [
        ["mvo", "MVO"], ["motion energy threshold (baseline)", "MVO"], ["always empty (baseline)", "MVO"],
        ["mvo", "myocardium"], ["motion energy threshold (baseline)", "myocardium"],
    ]  # fmt: skip
    assert body[1].count('class="own"') == 2
    assert find(folds, model="always empty", convention="pooled, 0/0 = 1")["value"] == 0.5
    assert lines[2][3].startswith("0.00")  # its Dice


def test_every_number_is_in_a_table_that_is_not_rounded(page: Page, folds: Path) -> None:
    with (folds / "report_numbers.csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert len(written) == len(rows(folds))
    for row in written:
        keys = ("model", "structure", "metric", "unit", "convention")
        expected = find(folds, **{key: row[key] for key in keys})
        assert row["value"] == ("" if expected["value"] is None else str(expected["value"]))
    for name in ("results", "numbers", "patients", "subjects", "contract"):
        assert (folds / f"report_{name}.csv").is_file()
        assert r"\toprule" in (folds / f"report_{name}.tex").read_text()
    with (folds / "report_patients.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12 * 2  # of the own model alone


def test_pictures_come_along_failures_first_and_can_be_heard(page: Page) -> None:
    cases = page.source[page.source.index("Cases, failures first") :]
    titles = re.findall(r"<h3>(.*?)</h3>", cases)
    assert titles[0].startswith("Missed")
    assert titles[1] == f"{titles[0]}, whole clip"
    assert page.tags.count("img") == 4
    assert sum(address.startswith("data:image/gif;base64,") for address in page.addresses) == 1
    assert all(len(alt) > 30 for alt in page.alts)
    assert len(page.alts) == page.tags.count("svg") + page.tags.count("img")
    assert any("sub-06, slice 0, frame 0" in alt for alt in page.alts)
    assert "MVO: 18 scans of 6 patients; myocardium: 36 scans of 12 patients" in page.text
    assert len(page.source) < 6_000_000


def test_no_request_leaves_the_page(page: Page) -> None:
    bare = without_pictures(page.source)
    assert not {"script", "link", "iframe", "object", "video"} & set(page.tags)
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    assert not re.search(r"(https?:)?//\w|@import|url\((?!#)", bare)


def test_no_place_is_given_away(page: Page, folds: Path) -> None:
    for file in (*folds.glob("report*.*"), *folds.glob("report_figures/*.svg")):
        assert not re.search("alice|bob|carol|dave|hospital|secret", without_pictures(file.read_text())), file
    assert "cine_contrastive" in page.text


def test_methods_can_be_pasted(page: Page) -> None:
    methods = page.text[page.text.index("Methods") :]
    assert "Spatiotemporal-Sensitive Network of Yu et al. (MICCAI 2025, paper 0219)" in methods
    assert "0.95 × soft Dice + 0.05 × root mean square of the uncertainty + 0.5 × cross-entropy" in methods
    assert "started from self-supervised pretraining ('cine_contrastive', no labels)" in methods
    assert "2 folds, each tested once by a head that had not seen it (2 patients to train, 1 to choose" in methods
    assert "bootstrap of patients" in methods
    assert "Baselines, evaluated in the same way: motion energy threshold and always empty" in methods


def test_folds_are_drawn_on_top_of_each_other(page: Page) -> None:
    assert {"Training loss", "Validation score"} <= set(re.findall(r"<h3>(.*?)</h3>", page.source))
    assert "fold 0" in page.source
    assert "fold 1" in page.source


def test_same_folder_same_bytes(folds: Path, tmp_path: Path) -> None:
    pages = [write_report(folds, tmp_path / f"{name}/page.html").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_the_results_folder_gives_the_same_page(folds: Path, page: Page, tmp_path: Path) -> None:
    other = Page(write_report(folds / "results", tmp_path / "page.html"))
    assert other.text.split("Beside it: ")[0] == page.text.split("Beside it: ")[0]


def test_results_alone_are_enough(folds: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    for name in ("results.json", "scans.tsv"):
        (tmp_path / "moved" / name).write_bytes((folds / "results" / name).read_bytes())
    alone = Page(write_report(tmp_path / "moved"))
    assert "mean Dice of" in alone.text
    assert "img" not in alone.tags


def test_interrupted_folds_show_what_there_is(tmp_path: Path) -> None:
    """config.yaml of the run itself is written at the end."""
    write_training(tmp_path / "run" / "fold-0")
    write_training(tmp_path / "run" / "fold-1", finished=False, validation=False)
    early = Page(write_report(tmp_path / "run"))
    assert "There are no results yet." in early.text
    assert "summary.json of fold 1 is missing: the run is still going on or was interrupted" in early.text
    assert "Training loss" in early.text


def test_a_single_training_shows_all_its_curves(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", CONFIG | {"folds": 0, "init": "", "freeze": False}, validation=False)
    single = Page(write_report(run))
    assert {"Loss", "dice loss", "Learning rate"} <= set(re.findall(r"<h3>(.*?)</h3>", single.source))
    assert "All weights started at random" in single.text
    assert "Nobody was held back for validation" in single.text
    assert "the trainings are finished, but there are no results" in single.text.lower()


def test_few_label_runs_speak_of_the_one_trained_on_most(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for count in (10, 5):
        write_training(run / f"patients-{count}" / "fold-0", validation=False)
    write_results(run, scans(models=("mvo, 5 patients", "mvo, 10 patients")), pictures=1)
    few = Page(write_report(run))
    assert "mvo, 10 patients reaches a mean Dice" in few.text
    assert re.search(r"5 patients, fold 0.*10 patients, fold 0", few.text)
    assert "mvo, 5 patients" in few.text


def test_few_label_runs_show_a_learning_curve_first(page: Page, tmp_path: Path) -> None:
    write_results(tmp_path, scans(models=("mvo, 5 patients", "mvo, 10 patients")), pictures=1)
    few = Page(write_report(tmp_path / "results"))
    titles = re.findall(r"<h3>(.*?)</h3>", few.source)
    assert titles[:2] == ["Dice by number of training patients", "Dice beside baselines"]
    dice = [find(tmp_path, model=f"mvo, {n} patients", structure="MVO", metric="dice_3d") for n in (5, 10)]
    told = ", ".join(
        f"{row['value']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f}) with {n} patients"
        for n, row in zip((5, 10), dice, strict=True)
    )
    assert dice[0]["value"] != dice[1]["value"]
    assert f"MVO, n = 6: {told}. myocardium, n = 12: " in few.alts[0]
    drawing = few.source[few.source.index("<svg") : few.source.index("</svg>")]
    for text in (
        "training patients",
        "n = 12 test patients: myocardium",
        "n = 6 test patients: MVO",
        "Dice in 3-D per patient",
    ):
        assert text in drawing
    assert "Dice by number of training patients" not in page.source


def test_the_stamp_is_on_top_and_in_the_methods(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", CONFIG | {"folds": 0})
    write_results(run, scans(6), pictures=1, stamp="OVERLAP: 3 of 12 subjects shaped the encoders")
    stamped = Page(write_report(run))
    assert stamped.text.count("OVERLAP: 3 of 12 subjects shaped the encoders") == 2
    assert "No patient was tested by a head" not in stamped.text


def test_the_page_stays_small_whatever_was_drawn(folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sorted(file.stat().st_size for file in (folds / "results" / "overlays").glob("*.png"))
    monkeypatch.setattr(segmentation_figures, "MOST_BYTES", sizes[-1] + 100)
    small = Page(write_report(folds, tmp_path / "page.html"))
    assert small.tags.count("img") == 1
    assert "1 of 3 pictures; the others lie in overlays/" in small.text


@pytest.mark.parametrize(
    ("own", "baseline", "sentence"),
    [
        ((0.6, 0.5, 0.7), (0.3, 0.2, 0.4), "ahead of it, and the intervals do not overlap"),
        ((0.3, 0.2, 0.4), (0.6, 0.5, 0.7), "behind it, and the intervals do not overlap"),
        ((0.4, 0.2, 0.6), (0.3, 0.1, 0.5), "The intervals overlap"),
        ((0.4, 0.2, 0.6), (0.0, None, None), "ahead of it, and the intervals do not overlap"),
        ((0.4, 0.2, 0.6), (0.3, None, None), "The intervals overlap"),
        ((0.4, None, None), (0.3, 0.1, 0.5), "do not show which is better"),
    ],
)
def test_plain_words_follow_the_intervals(
    tmp_path: Path, own: tuple[Any, ...], baseline: tuple[Any, ...], sentence: str
) -> None:
    def row(model: str, numbers: tuple[Any, ...], value: float | None = None) -> dict[str, Any]:
        keys = dict(zip(("value", "ci_low", "ci_high"), numbers, strict=True))
        base = {
            "structure": "MVO",
            "phase": "",
            "metric": "dice",
            "unit": "scan",
            "n_patients": 40,
            "n_units": 90,
            "dropped": 0,
        }
        return {"model": model, "baseline": model != "mvo", "measure_unit": "", "convention": "positives only", **base, **keys}

    record = {"format": "ssl4neuro results", "version": 1, "kind": "segmentation"}
    lines = [row("mvo", own), row("worse", (0.0, 0.0, 0.0)), row("rival", baseline)]
    if baseline[0] == 0.0:
        lines.pop(1)
    (tmp_path / "results.json").write_text(json.dumps(record | {"rows": lines}))
    found = Page(write_report(tmp_path))
    assert "The strongest baseline, 'rival'" in found.text
    assert sentence in found.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"results.json": '{"kind": "segmentation"}'}, "not ssl4neuro results version 1"),
        ({"results.json": '{"format": "ssl4neuro results", "version": 1, "kind": "segmentation"}'}, "'rows' is missing"),
        ({"config.yaml": "head: {name: mvo}", "results/results.json": "{"}, "not valid JSON"),
        ({"config.yaml": "head: {name: mvo}", "results/scans.tsv": ""}, "scans.tsv: not a table"),
    ],
)
def test_damaged_folders_in_one_line(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("report*"))


def test_roc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4  # with ties
    x, y = figures.roc_points(score, positive)
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(x, fpr)
    np.testing.assert_allclose(y, tpr)


def test_agreement_draws_every_line_at_its_height() -> None:
    svg = figures.agreement(np.array([1.0, 2.0]), np.array([0.5, 4.5]), {"bias": 2.5, "−1.96 sd": -3.0}, "ml")
    assert "bias 2.50" in svg
    assert "−1.96 sd −3.00" in svg
    assert "reference [ml]" in svg


def test_dark_pages_give_figures_a_light_ground(page: Page) -> None:
    """Their lines and letters are dark, and they have no ground of their own."""
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    dark = style.split("@media screen and (prefers-color-scheme: dark)")[1:]
    assert any(".drawing { background: #fff" in block for block in dark)
    assert page.source.count('class="drawing"') == page.tags.count("svg") + page.tags.count("img")
