"""Component-to-network assignment: against np.corrcoef, and on real group components."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.templates import assign, correlate, read_networks, read_review, read_table
from ssl4neuro.errors import UserError


def naive(maps: np.ndarray, templates: np.ndarray, names: list[str], threshold: float) -> list[tuple]:
    lines = []
    for component in maps:
        r = [np.corrcoef(component, template)[0, 1] for template in templates]
        best = max(range(len(r)), key=lambda k: abs(r[k]))
        rivals = [k for k in range(len(r)) if names[k] != names[best]]
        second = max(rivals, key=lambda k: abs(r[k])) if rivals else None
        network = names[best] if abs(r[best]) >= threshold else ""
        lines.append((network, best + 1, r[best], names[second] if rivals else "", r[second] if rivals else float("nan")))
    return lines


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_assign_equals_the_naive_loop(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    templates = rng.normal(3, 2, (7, 60)).astype(dtype)  # few voxels: correlations on both sides of the threshold
    maps = (rng.normal(size=(12, 7)) @ templates + rng.normal(1, 3, (12, 60))).astype(dtype)
    names = ["DMN", "VIS", "DMN", "", "SMN", "VIS", "LAN"]
    lines = assign(maps, templates, names, threshold=0.5)
    expected = naive(maps, templates, names, threshold=0.5)
    assert {line["assigned"] for line in lines} == {"yes", "no"}, "the case is to have both"
    for line, (network, template, r, second, second_r) in zip(lines, expected, strict=True):
        assert (line["network"], line["template"], line["second_network"]) == (network, template, second)
        assert line["correlation"] == pytest.approx(r, abs=1e-4)
        assert line["second_correlation"] == pytest.approx(second_r, abs=1e-4)
        assert line["assigned"] == ("yes" if network else "no")


def test_sign_does_not_matter_and_one_template_takes_several() -> None:
    templates = np.random.default_rng(0).normal(size=(3, 400))
    lines = assign(np.stack([-templates[1], templates[1], 5 - 2 * templates[1]]), templates, ["A", "B", "C"])
    assert [line["network"] for line in lines] == ["B", "B", "B"]
    assert [line["correlation"] for line in lines] == [-1, 1, -1]


def test_constant_maps_correlate_with_nothing() -> None:
    templates = np.random.default_rng(0).normal(size=(2, 50))
    maps = np.stack([np.full(50, 1e6 + 0.1), np.zeros(50)])
    assert (correlate(maps, templates) == 0).all()
    assert [line["network"] for line in assign(maps, templates, ["A", "B"])] == ["", ""]


def test_a_tiny_map_is_not_taken_for_constant() -> None:
    templates = np.random.default_rng(0).normal(size=(2, 50))
    assert assign(1e-14 * templates, templates, ["A", "B"])[1]["network"] == "B"


def test_an_unnamed_template_competes() -> None:
    templates = np.random.default_rng(0).normal(size=(2, 300))
    line = assign((0.5 * templates[:1] + templates[1:]), templates, ["named", ""], threshold=0.2)[0]
    assert (line["network"], line["template"], line["assigned"]) == ("", 2, "no")
    assert line["second_network"] == "named"


def test_single_template_has_no_second() -> None:
    line = assign(np.eye(3), np.eye(3)[:1], ["A"])[0]
    assert line["second_network"] == ""
    assert np.isnan(line["second_correlation"])


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_impossible_threshold(threshold: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        assign(np.eye(3), np.eye(3), ["A", "B", "C"], threshold)


def test_wrong_number_of_names() -> None:
    with pytest.raises(UserError, match="3 volumes but 2 names"):
        assign(np.eye(3), np.eye(3), ["A", "B"])


def test_networks_table(tmp_path: Path) -> None:
    path = tmp_path / "n.tsv"
    path.write_text("component\tnetwork\textra\n2\tVIS\tx\n1\tn/a\t\n")
    assert read_networks(path) == {2: "VIS", 1: "n/a"}
    csv = tmp_path / "n.csv"
    csv.write_text('component,network\n1,"A, B"\n')
    assert read_networks(csv) == {1: "A, B"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("component\tname\n1\tA\n", "no column 'network'"),
        ("component\tnetwork\nfirst\tA\n", "line 2: component 'first'"),
        ("component\tnetwork\n0\tA\n", "counted from 1"),
        ("component\tnetwork\n1\tA\n1\tB\n", "line 3 names component 1 a second time"),
        ("component\tnetwork\n9\tA\n", "component 9 of only 5"),
        ("", "not a readable table"),
        ("component,network\n1,A\n", "separated by tabs"),
    ],
)
def test_bad_networks_table(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "n.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=problem) as error:
        read_networks(path, 5)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_absent_or_binary_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.tsv", ())
    (tmp_path / "b.tsv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="not a readable table"):
        read_table(tmp_path / "b.tsv", ())


def test_review_table_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "assignment.tsv"
    rng = np.random.default_rng(0)
    templates = rng.normal(size=(2, 100))
    lines = assign(np.vstack([templates, rng.normal(size=(1, 100))]), templates, ["A", "B"], 0.9)
    table = pd.DataFrame(
        [
            {"participant_id": "sub-1", "session_id": "", "run_id": "", "component": i, **line}
            for i, line in enumerate(lines, start=1)
        ]
    )
    table.to_csv(path, sep="\t", index=False)
    assert read_review(path) == {("sub-1", "", "", 1): "A", ("sub-1", "", "", 2): "B", ("sub-1", "", "", 3): ""}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("sub-1\t1\tA\tno\n", "says assigned 'no'"),
        ("sub-1\t1\tA\tyes\nsub-1\t1\tB\tyes\n", "repeats component 1 of sub-1"),
        ("sub-1\tx\tA\tyes\n", "not a number"),
    ],
)
def test_bad_review_table(tmp_path: Path, body: str, problem: str) -> None:
    path = tmp_path / "assignment.tsv"
    path.write_text("participant_id\tcomponent\tnetwork\tassigned\n" + body)
    with pytest.raises(UserError, match=problem):
        read_review(path)


def test_recovers_real_networks_under_noise_order_and_sign(shared_data: Path) -> None:
    """ABIDE's 14 named group components, permuted, flipped and with as much noise as signal."""
    folder = shared_data / "abide-group-ica"
    names = pd.read_csv(folder / "RSNs32.csv").set_index("Component index")["Resting-state network"].str.strip()
    data = nib.load(folder / "melodic_IC_32_4mm.nii.gz").get_fdata(dtype=np.float32)
    mask = (data != 0).any(axis=-1)
    all_maps = data[mask].T
    templates, networks = all_maps[names.index - 1], list(names)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(all_maps))
    sign = rng.choice([-1, 1], len(order))
    noisy = all_maps[order] * sign[:, None]
    noisy = noisy + rng.normal(size=noisy.shape) * noisy.std(axis=1, keepdims=True)
    lines = assign(noisy.astype(np.float32), templates, networks)
    told = [line["network"] for line in lines]
    truth = [names.get(number + 1, "") for number in order]
    named = [i for i, name in enumerate(truth) if name]
    assert [told[i] for i in named] == [truth[i] for i in named]
    assert all(np.sign(lines[i]["correlation"]) == sign[i] for i in named)
    assert all(lines[i]["assigned"] == "no" for i in range(len(order)) if not truth[i]), (
        "unnamed components resemble no template"
    )
