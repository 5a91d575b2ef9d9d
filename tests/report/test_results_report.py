"""The report of a probe with everything: sites, nuisances, label efficiency, audit, map, explanations; several targets."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_reader import Page

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.probe import probe, probe_arrays
from ssl4neuro.evaluate.probe_targets import probe_targets
from ssl4neuro.evaluate.results import write_results
from ssl4neuro.report import embedding_map, write_report
from ssl4neuro.report.embedding_map import map_figure, tsne
from ssl4neuro.report.results_figures import scored
from ssl4neuro.report.results_folder import read_results

PEOPLE, SEEN, UNKNOWN = 40, 6, -2  # the last two are in no table of labels
FEW = {"permutations": 20, "bootstrap": 60}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of another tool: a diagnosis that shows, an age that does not, two sites; some people were in its training."""
    folder, rng = tmp_path_factory.mktemp("secret-hospital"), np.random.default_rng(0)
    sick = np.arange(PEOPLE) % 2 == 0
    frame = pd.DataFrame(rng.standard_normal((PEOPLE, 6)) + 1.5 * sick[:, None], columns=[f"f{i}" for i in range(6)])
    frame.insert(0, "subject", [f"alice{i:02d}" for i in range(PEOPLE)])
    frame["seen"] = np.arange(PEOPLE) < SEEN
    frame.to_csv(folder / "features.csv", index=False)
    people = pd.DataFrame({"participant_id": frame["subject"], "dx": np.where(sick, "patient", "control")})
    people["age"], people["scanner"] = rng.integers(20, 80, PEOPLE), np.where(np.arange(PEOPLE) < 20, "A", "B")
    people[:UNKNOWN].to_csv(folder / "people.tsv", sep="\t", index=False)
    return folder / "features.csv"


@pytest.fixture(scope="module")
def results(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "dx"
    probe(
        table, participants=table.with_name("people.tsv"), target="dx", site="scanner", nuisance=["age"], out=out,
        label_efficiency=(0.5, 1.0), **FEW,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(results, tmp_path_factory.mktemp("page") / "report.html"))


def titles(page: Page) -> list[str]:
    return [part.split("</h3>")[0] for part in page.source.split("<h3>")[1:]]


def test_every_figure_is_there_with_a_text_that_stands_for_it(page):
    assert [t for t in titles(page) if not t.startswith("Confusion")] == [
        "Embedding beside baselines", "ROC", "Calibration", "Per site", "Label efficiency", "Site decodability",
        "Map of held-out embeddings",
    ]  # fmt: skip
    alts = [part.split('"')[0] for part in page.source.split('role="img" aria-label="')[1:]]
    assert len(alts) == len(titles(page))
    assert all(len(alt) > 40 and any(c.isdigit() for c in alt) for alt in alts)


def test_question_answer_and_what_stands_beside_it(page, results):
    found = read_results(results)
    assert "Can 'dx' (patient against control) be predicted from the embedding" in page.text
    assert f"AUC {found.own['value']:.3f}" in page.text
    assert "Paired difference" in page.text
    assert "The model 'nuisance only' sees age and no image." in page.text
    n = found.own["n_subjects"]
    assert f"Tested: {n} subjects, 2 sites" in page.text
    for model in (found.own["name"], "nuisance only"):
        assert model in page.text


def test_what_a_foreign_table_cannot_show_is_not_claimed(page):
    assert "No subject of a test fold was seen" not in page.text
    assert "for people whom the probe has not seen?" in page.text
    assert "what its model was trained on is not recorded" in page.text


def test_audit_and_methods_are_complete(page, results):
    record = json.loads((results / "results.json").read_text())
    for check in record["checks"]:
        assert check["name"] in page.text
    states = [check["status"] for check in record["checks"]]
    expected = f"{states.count('passed')} checks passed, {states.count('flagged')} flagged, {states.count('not checkable')} not"
    assert expected in page.text
    methods = page.text.split("Methods ")[-1]
    for word in (
        "5 folds",
        "20 permutations",
        "60 bootstrap",
        "seed 0",
        "scanner",
        "age",
        "two one-sided tests",
        "numpy",
        "audit",
    ):
        assert word in methods


def test_no_subject_and_no_place_on_the_page_or_beside_it(results, tmp_path):
    write_report(results, tmp_path / "report.html")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "alice" not in text, file
        assert "secret" not in text, file


def test_structure_for_screen_readers(page):
    assert '<html lang="en">' in page.source
    assert '<a class="skip" href="#content">' in page.source
    levels = [int(tag[1]) for tag in page.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert page.source.count("<th ") == page.source.count("<th scope=")
    anchors = [link[1:] for link in page.links if link.startswith("#") and len(link) > 1]
    sections = [a for a in anchors if f'<h2 id="{a}"' in page.source]
    assert len(sections) >= 8
    assert all(page.source.count(f'id="{a}"') == 1 for a in sections)


def test_tables_and_figures_lie_beside_the_page(results, tmp_path):
    write_report(results, tmp_path / "page.html")
    written = pd.read_csv(tmp_path / "page_sites.csv")
    pd.testing.assert_frame_equal(written, pd.read_csv(results / "sites.tsv", sep="\t"))
    assert (tmp_path / "page_sites.tex").read_text().count(r"\\") == len(written) + 1
    for kind in ("checks", "comparison", "label_efficiency", "site_decodability", "versions"):
        assert (tmp_path / f"page_{kind}.csv").is_file()
    assert (tmp_path / "page_figures" / "02-roc.svg").is_file()


def test_an_older_report_leaves_nothing_behind(results, tmp_path):
    (tmp_path / "page_figures").mkdir()
    (tmp_path / "page_figures" / "99-old.svg").write_text("old")
    write_report(results, tmp_path / "page.html")
    assert not (tmp_path / "page_figures" / "99-old.svg").exists()


def test_flagged_checks_come_first(results, tmp_path):
    copy = _with(results, tmp_path, checks=[{"name": "site or scanner", "status": "flagged", "detail": "all patients at B"}])
    page = Page(write_report(copy))
    assert "Attention: Site or scanner: all patients at B" in page.text
    assert page.text.index("all patients at B") < page.text.index("Asked")
    assert "But 1 check of the leak audit is flagged: read the warnings above first." in page.text


def test_an_overlap_is_said_once_on_top(results, tmp_path):
    stamp = "overlap: 3 of 9 test subjects were seen in pretraining"
    check = {"name": "encoder trained on test subjects", "status": "flagged", "detail": stamp}
    page = Page(write_report(_with(results, tmp_path, stamp=stamp, checks=[check])))
    assert page.text.count("Attention: ") == 1
    assert f"Attention: Encoder trained on test subjects: {stamp}" in page.text
    assert "neither encoder nor probe" not in page.text


def test_nuisances_as_good_as_the_embedding_are_pointed_out(results, tmp_path):
    rows = json.loads((results / "results.json").read_text())["rows"]
    rows[0]["p"] = 0.01
    rows = [row | {"value": 1.0} if row["name"] == "nuisance only" else row for row in rows]
    page = Page(write_report(_with(results, tmp_path, rows=rows, checks=[])))
    assert "Nuisance variables alone do as well as the embedding (AUC 1.000)" in page.text


def test_results_without_their_tables_still_show_their_numbers(results, tmp_path):
    """An old folder, or results.json alone."""
    copy = _with(results, tmp_path, tables=["sites"])
    page = Page(write_report(copy))
    assert "sites.tsv is missing from the folder" in page.text
    assert "predictions.tsv is missing" in page.text
    assert "Calibration is not shown" in page.text
    old = json.loads((copy / "results.json").read_text())
    for key in ("checks", "tables", "environment", "source"):
        del old[key]
    old["rows"] = [{k: v for k, v in row.items() if k not in ("p_corrected", "p_equivalence")} for row in old["rows"]]
    (copy / "results.json").write_text(json.dumps(old))
    page = Page(write_report(copy))
    assert f"AUC {old['rows'][0]['value']:.3f}" in page.text
    assert "The command line was not recorded" in page.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sites.tsv", "model\tsite\tmetric\nf\tA\tAUC\n", "sites.tsv: column 'value' is missing"),
        ("predictions.tsv", "model\tsubject\nf\ta\n", "predictions.tsv: column 'truth' is missing"),
        ("comparison.tsv", 'model\t"\n', "comparison.tsv: not a table"),
    ],
)
def test_damaged_tables_in_one_line(results, tmp_path, name, text, message):
    copy = _with(results, tmp_path, whole=True)
    (copy / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        write_report(copy)
    assert "\n" not in str(error.value)
    assert not list(copy.glob("report*"))


def test_classes_may_have_awkward_names(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.tile(["01", "None"], 12)
    found = probe_arrays({"e": rng.standard_normal((24, 3))}, labels, [f"s{i}" for i in range(24)], permutations=0, bootstrap=9)
    write_results(found, tmp_path / "r")
    read = read_results(tmp_path / "r")
    assert set(read.predictions["truth"]) == {"01", "None"}
    assert len(scored(read.held_out("e"), "score None", "None")) == 1


def test_only_held_out_people_are_on_the_map(results, monkeypatch):
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(embedding_map.evidence_figures, "scatter", lambda xy, label: drawn.append((xy, label)) or "<svg/>")
    found = read_results(results)
    figures, why = map_figure(found)
    held = found.held_out(found.own["name"])
    assert (len(figures), why) == (1, "")
    assert len(drawn[0][0]) == held["subject"].nunique() == PEOPLE - SEEN + UNKNOWN
    assert set(drawn[0][1]) == {"control", "patient"}
    assert "t-SNE keeps neighbours together and nothing else" in figures[0].caption


def test_a_map_that_cannot_be_drawn_says_why(results, tmp_path):
    source = json.loads((results / "results.json").read_text())["source"]
    gone = _with(results, tmp_path, whole=True, source=source | {"embeddings": "/secret/gone"})
    assert map_figure(read_results(gone)) == (
        [],
        "The map of embeddings is left out: the embeddings 'gone' are not at hand.",
    )
    other = tmp_path / "other.csv"
    other.write_text("subject,g0,g1\n" + "\n".join(f"s{i},{i},{i * i}" for i in range(9)))
    again = _with(results, tmp_path, whole=True, source={"embeddings": str(other), "foreign": True})
    figures, why = map_figure(read_results(again))
    assert figures == []
    assert "other.csv has no embedding" in why
    assert str(tmp_path) not in why


def test_the_map_is_seeded_and_separates_what_is_separate():
    rng = np.random.default_rng(0)
    matrix = np.concatenate([rng.standard_normal((15, 8)), rng.standard_normal((15, 8)) + 8]).astype(np.float32)
    xy = tsne(matrix, 1)
    np.testing.assert_array_equal(xy, tsne(matrix, 1))
    near = ((xy[:, None] - xy[None]) ** 2).sum(2) + np.diag(np.full(30, np.inf))
    assert ((near.argmin(1) < 15) == (np.arange(30) < 15)).all()


def test_explanations_are_shown_with_their_warnings(results, tmp_path):
    copy = _with(results, tmp_path)
    (copy / "explain" / "figures").mkdir(parents=True)
    for name, size in (("cam.png", 3000), ("cam.svg", 50), ("huge.png", 2_000_000)):
        (copy / "explain" / "figures" / name).write_bytes((b"\x89PNG" if name.endswith("png") else b"<svg/>").ljust(size))
    (tmp_path / "outside.png").write_bytes(b"\x89PNG private")
    entries = [
        {"files": ["figures/cam.png", "figures/cam.svg"], "caption": "Eigen-CAM of motor. Mean.", "alt": "left hand area"},
        {"files": ["figures/huge.png"], "caption": "Huge. Too much."},
        {"files": ["../../outside.png"], "caption": "Stolen."},
    ]
    record = {"figures": entries, "warnings": ["alike with random weights"], "method": "Eigen-CAM was used."}
    (copy / "explain" / "explain.json").write_text(json.dumps(record))
    page = Page(write_report(copy))
    assert "Eigen-CAM of motor" in titles(page)
    assert 'alt="left hand area"' in page.source
    assert "data:image/svg+xml;base64," in page.source  # the smaller file
    assert "Attention: alike with random weights" in page.text
    assert page.text.index("Asked") < page.text.index("alike with random weights")  # it is about the pictures, not the answer
    assert "The picture 'Huge' is not on this page, because the page would become too heavy" in page.text
    assert "The picture 'Stolen' is not on this page, because its file is gone" in page.text
    assert "Eigen-CAM was used." in page.text.split("Methods ")[-1]


def test_several_targets(table, tmp_path):
    out = tmp_path / "targets"
    people = table.with_name("people.tsv")
    probe_targets(table, ["dx", "age"], participants=people, out=out, **FEW)
    page = Page(write_report(out))
    found = pd.read_csv(out / "targets.tsv", sep="\t")
    assert "Which of dx and age can be predicted" in page.text
    own = found[(found["target"] == "dx") & ~found["baseline"]].iloc[0]
    assert f"{own['p_corrected']:.4f}" in page.text
    assert ("Evidence for dx" in page.text) == (own["p_corrected"] <= 0.05)
    assert titles(page) == ["Targets, AUC", "Targets, R2"]
    assert "ssl4neuro report targets/age" in page.text
    assert "Westfall" in page.text
    shutil.rmtree(out / "age")
    with pytest.raises(UserError, match=r"not ssl4neuro results"):
        write_report(out)
    (out / "targets.tsv").write_text("target\tmodel\n")
    with pytest.raises(UserError, match=r"targets.tsv: column"):
        write_report(out)


def _with(results: Path, tmp_path: Path, *, whole: bool = False, **changed: object) -> Path:
    """A copy with other entries in results.json; without the tables and their figures unless it is to be `whole`."""
    copy = tmp_path / f"copy{len(list(tmp_path.glob('copy*')))}"
    left_out = ("report*", "*.png") if whole else ("report*", "*.png", "*.tsv")
    shutil.copytree(results, copy, ignore=shutil.ignore_patterns(*left_out))
    record = json.loads((copy / "results.json").read_text()) | ({} if whole else {"tables": []}) | changed
    (copy / "results.json").write_text(json.dumps(record))
    return copy
