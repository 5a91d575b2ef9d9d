import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_reader import Page

from ssl4neuro.errors import UserError
from ssl4neuro.report import write_report
from ssl4neuro.report.page import duration, listed, number, plural

CONFIG = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "small"}},
        "course": {"encoder": {"name": "course_conv"}},
    },
    "objectives": {
        "cross": {"name": "infonce", "between": ["map", "course"]},
        "person": {"name": "infonce", "between": ["course"]},
    },
    "data": "/secret/hospital/cohorts/rest",
    "optimiser": {"name": "adamw", "rate": 0.001, "weight_decay": 0.01, "schedule": "cosine"},
    "sampling": {"kind": "sessions", "batch_size": 8},
    "seed": 3,
}
ENVIRONMENT = {"seed": 3, "device": "cpu", "processes": 1, "versions": {"ssl4neuro": "0.1.0", "torch": "2.15"}}
SPLIT = {"train": ["sub-alice", "sub-bob", "sub-carol"], "validation": ["sub-dave"], "holdout": ["sub-erin", "sub-frank"]}
CONTRACT = {
    "map": {"kind": "volume", "shape": [4, 5, 6], "affine": np.diag([8.0, 8.0, 8.0, 1.0]).tolist(), "mask_sha256": "ab" * 32},
    "course": {"kind": "course", "tr": 2.0, "trs": [2.0, 0.8], "band": [0.01, 0.1], "template_sha256": None},
}
VALIDATION = {
    "cross/loss": 1.5,
    "map/effective_rank": 9.0,
    "course/effective_rank": 7.0,
    "map/uniformity": -2.5,
    "retrieval": 0.4,
    "knn": 0.6,
}


def write_run(path: Path, *, finished: bool = True, **validation: float) -> Path:
    """A run as train.run.Run and checkpoint.save leave it."""
    from ssl4neuro.train.run import Run

    run = Run(path)
    run.create(CONFIG, ENVIRONMENT, SPLIT)
    for step in range(10, 210, 10):
        terms = {"loss": 6 - step / 50, "cross/loss": 4 - step / 60, "person/loss": 2.0}
        run.log(step=step, epoch=step // 100, split="train", **terms, lr=1e-3, samples_per_s=50.5, data_wait=0.01)
        if step % 100 == 0:
            run.log(
                step=step,
                epoch=step // 100,
                split="validation",
                loss=step / 100 + 3,
                signal=step / 100 + 3,
                **VALIDATION | validation,
            )
    folder = path / "checkpoints" / "step-00000100"
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text(json.dumps(CONTRACT))
    (path / "checkpoints" / "best.json").write_text('{"step": 100, "metric": 4.0}')
    if finished:
        alarms = ["course: effective rank 1.5 of 64: collapsed; raise the batch size"]
        run.summarise(
            steps=200, epochs=2.0, stopped_early=False, seconds=75.4, samples_per_s=50.0, data_wait=0.2, alarms=alarms
        )
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder by the library's own writer."""
    from ssl4neuro.evaluate.probe import probe_arrays
    from ssl4neuro.evaluate.results import write_results

    rng = np.random.default_rng(0)
    labels = np.tile(["pre", "post"], 12)
    signal = (labels == "post")[:, None] + rng.standard_normal((24, 4))
    found = probe_arrays(
        {"joint": signal}, labels, np.repeat([f"sub-{i}" for i in range(12)], 2), seen=np.arange(24) < 4,
        baselines={"PCA & <script>alert(1)</script> 50%": rng.standard_normal((24, 3))}, target="state",
        permutations=10, bootstrap=50, folds=3,
    )  # fmt: skip
    return write_results(found, tmp_path_factory.mktemp("results") / "state"), found


def test_run_report(run):
    out = write_report(run)
    page = Page(out)
    assert out == run / "report.html"
    assert "The map and course encoders were pretrained without labels on 3 subjects." in page.text
    assert "Training finished after 200 steps (2 epochs) in 1 min 15 s." in page.text
    assert "The validation loss was best at step 100 (4.000) and was 5.000 at the end" in page.text
    assert "course: effective rank 1.5 of 64: collapsed; raise the batch size" in page.text
    assert "voxels 8 × 8 × 8 mm" in page.text
    assert "2, 0.8 s" in page.text
    assert "4 × 5 × 6" in page.text
    assert "infonce between map and course (weight 1) and infonce within course (weight 1)" in page.text
    assert "seed 3" in page.text
    titles = re.findall(r"<h3>(.*?)</h3>", page.source)
    assert titles[:3] == ["Loss", "cross: loss", "person: loss"]
    assert {"Effective rank", "Uniformity", "Online scores", "Learning rate", "Throughput"} <= set(titles)
    assert page.tags.count("svg") == len(titles)


def test_curves_go_through_the_values():
    """Every value becomes a vertex at its height on the axis."""
    from ssl4neuro.report import figures

    svg = figures.curves({"a": (np.arange(5.0), np.array([0.0, 1.0, 4.0, 9.0, 16.0]))}, "y")
    path = next(d for d in re.findall(r'd="(M[^"]*)"', svg) if d.count("L") == 4 and "z" not in d)
    points = np.array([[float(v) for v in pair.split()[-2:]] for pair in re.split("[ML]", path)[1:]])
    heights = points[0, 1] - points[:, 1]
    np.testing.assert_allclose(heights / heights[-1], np.array([0, 1, 4, 9, 16]) / 16, atol=1e-4)


def test_long_logs_stay_small_and_keep_their_mean():
    from ssl4neuro.report import figures

    x, y = np.arange(100_000.0), np.random.default_rng(0).standard_normal(100_000)
    thin_x, thin_y = figures._thin(x, y)
    assert len(thin_x) == figures.MOST_POINTS
    np.testing.assert_allclose([thin_x.mean(), thin_y.mean()], [x.mean(), y.mean()], atol=1e-9)


@pytest.mark.parametrize("kind", ["run", "results"])
def test_self_contained(kind, run, results, tmp_path):
    page = Page(write_report(run if kind == "run" else results[0], tmp_path / "page.html"))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"(https?:)?//\w|@import|url\((?!#)", page.source)


def test_no_subject_is_named_and_no_place_given_away(run):
    write_report(run)
    for file in (*run.glob("report*.*"), *run.glob("report_figures/*"), run / "model_card.md"):
        text = file.read_text()
        assert not re.search("alice|bob|carol|dave|erin|frank|hospital|secret", text), file
    assert "3" in (run / "report_subjects.csv").read_text()


def test_same_folder_same_bytes(run, tmp_path):
    pages = [write_report(run, tmp_path / f"{name}/page.html").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


def test_interrupted_run(tmp_path):
    run = write_run(tmp_path / "run", finished=False, **{"map/effective_rank": 1.3, "map/spread": 0.001})
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 210, "epo')
    page = Page(write_report(run))
    assert "The run has not finished: its log ends after 200 steps" in page.text
    assert "continue it with --resume" in page.text
    assert "map: effective rank 1.3" in page.text
    assert "map: spread 0.001" in page.text
    assert "Left out because unreadable: 1 line of log.jsonl" in page.text


def test_log_alone_is_enough(tmp_path):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 1, "split": "train", "loss": NaN}\n{"step": 2, "split": "train", "loss": 1.0}\n'
    )
    page = Page(write_report(tmp_path))
    assert "No validation has been logged" in page.text
    assert "no checkpoint was saved" in page.text
    assert page.tags.count("svg") == 1


def test_config_alone_is_enough(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "modalities: {map: {encoder: {name: x}}}\nobjectives: {a: {name: supcon, labels: [state]}}\n"
    )
    assert "The map encoder was pretrained with the labels state" in Page(write_report(tmp_path)).text


def test_slow_loading_is_pointed_out(tmp_path):
    run = write_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 200, "split": "train", "data_wait": 0.42}) + "\n")
    assert "42% of the time went into waiting for data; raise loop.workers" in Page(write_report(run)).text


def test_healthy_run_says_so(tmp_path):
    assert "No sign of collapse" in Page(write_report(write_run(tmp_path / "run", finished=False))).text


def test_results_report(results, tmp_path):
    folder, found = results
    page = Page(write_report(folder, tmp_path / "page.html"))
    own, baseline = (next(r for r in found.rows if r.baseline is kind and r.metric == "AUC") for kind in (False, True))
    assert "Linear probe of state" in page.text
    assert f"The embedding 'joint' reaches AUC {own.value:.3f} (95 % CI {own.ci_low:.3f} to {own.ci_high:.3f}; " in page.text
    assert f"{own.n_subjects} subjects" in page.text
    for row in found.rows:
        assert f"{row.value:.3f}".replace("-", "−") in page.text
    assert baseline.name in page.text  # escaped, hence text and no tag
    assert "script" not in page.tags
    assert page.tags.count("svg") >= 2
    assert "Folds were formed by subject" in page.text


def test_stamp_is_shown(results, tmp_path):
    folder, _ = results
    record = json.loads((folder / "results.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "results.json").write_text(
        json.dumps(record | {"stamp": "overlap: 3 of 12 test subjects were seen in pretraining"})
    )
    page = Page(write_report(copy))
    assert page.text.count("verlap: 3 of 12 test subjects were seen in pretraining") == 2  # on top and in the methods
    assert "No subject of a test fold was seen" not in page.text
    assert "No subject of a test fold was seen" in Page(write_report(folder, tmp_path / "page.html")).text


@pytest.mark.parametrize(
    ("own", "baseline", "sentence"),
    [
        ((0.9, 0.85, 0.95), (0.7, 0.6, 0.8), "ahead of it, and the intervals do not overlap"),
        ((0.5, 0.4, 0.6), (0.8, 0.7, 0.9), "behind it, and the intervals do not overlap"),
        ((0.8, 0.7, 0.9), (0.75, 0.65, 0.85), "The intervals overlap"),
        ((0.8, None, None), (0.75, 0.65, 0.85), "ahead of it."),
    ],
)
@pytest.mark.parametrize("metric", ["AUC", "MAE"])
def test_plain_words_follow_the_intervals(tmp_path, own, baseline, sentence, metric):
    def row(name, value, low, high):
        sign = -1 if metric == "MAE" else 1  # an error is better when it is lower
        low, high = (None, None) if low is None else sorted((sign * low, sign * high))
        base = {"metric": metric, "n_subjects": 9, "n_samples": 9, "unit": "subject", "p": None, "chance": None}
        return base | {"name": name, "baseline": name == "fnc", "value": sign * value, "ci_low": low, "ci_high": high}

    worse = row("fnc", 0.1, 0.05, 0.15) | {"name": "majority"}
    record = {"format": "ssl4neuro results", "version": 1, "target": "age", "probe": "linear", "task": "regression"}
    (tmp_path / "results.json").write_text(json.dumps(record | {"rows": [row("joint", *own), row("fnc", *baseline), worse]}))
    page = Page(write_report(tmp_path))
    assert sentence in page.text
    assert "Best baseline 'fnc' reaches" in page.text


def test_missing_baselines_are_pointed_out(results, tmp_path):
    record = json.loads((results[0] / "results.json").read_text())
    record["rows"] = [row for row in record["rows"] if not row["baseline"]]
    (tmp_path / "results.json").write_text(json.dumps(record))
    assert "No baseline stands beside these numbers" in Page(write_report(tmp_path)).text


def test_tables_beside_the_page(results, tmp_path):
    folder, found = results
    write_report(folder, tmp_path / "page.html")
    with (tmp_path / "page_results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    by_name = {(row["name"], row["metric"]): row for row in rows}
    assert len(by_name) == len(found.rows)
    for row in found.rows:
        written = by_name[row.name, row.metric]
        assert float(written["value"]) == row.value  # not rounded
        assert written["unit"] == row.unit
    latex = (tmp_path / "page_results.tex").read_text()
    assert r"PCA \& <script>alert(1)</script> 50\%" in latex
    lines = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {9}  # ten columns
    assert len(lines) == len(found.rows) + 1


def test_names_are_escaped_in_figures(tmp_path):
    from ssl4neuro.report import figures

    row = {"metric": "AUC", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "chance": 0.5, "baseline": False, "name": "<b>$x_1$"}
    svg = figures.estimates([row], ["AUC"]) + figures.confusion(np.eye(2), ["<i>", "a&b"])
    assert "&lt;b&gt;$x_1$" in svg
    assert "&lt;i&gt;" in svg
    assert "a&amp;b" in svg
    assert "<b>" not in svg


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither a run nor a results folder"),
        ({"cohort.json": "{}"}, "this is a prepared cohort"),
        ({"fold-0/config.yaml": "", "fold-1/config.yaml": ""}, "holds 2 runs, one per fold; .*fold-0"),
        ({"results.json": "{"}, "not valid JSON"),
        ({"results.json": "[]"}, "holds a list where an object is needed"),
        ({"results.json": "{}"}, "not ssl4neuro results version 1"),
        ({"results.json": '{"format": "ssl4neuro results", "version": 1, "rows": []}'}, "'rows' is missing"),
        ({"config.yaml": "a: ["}, "not valid YAML"),
        ({"log.jsonl": "", "summary.json": "{"}, "summary.json: not valid JSON"),
    ],
)
def test_bad_folders_in_one_line(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("report*"))


def test_bad_places(run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a folder; name an HTML file"):
        write_report(run, tmp_path)


def test_stays_light(run):
    """The report must not wait for torch: it is read on machines that never train."""
    code = f"import sys; from ssl4neuro.report import write_report; write_report({str(run)!r})"
    code += "; print(sorted({'torch', 'faiss', 'nilearn', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_words():
    assert [duration(s) for s in (14.2, 200, 7500)] == ["14 s", "3 min 20 s", "2 h 5 min"]
    assert [listed(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert [plural(n, w) for n, w in ((1, "subject"), (2000, "subject"), (3, "class"))] == [
        "1 subject",
        "2,000 subjects",
        "3 classes",
    ]
    assert number(-0.0416) == "−0.042"
    assert [number(v) for v in (None, float("nan"), 0.12345, 1234.5, 12, 1e-5, 0.0)] == [
        "–",
        "–",
        "0.123",
        "1,234.500",
        "12",
        "1e-05",
        "0.000",
    ]
