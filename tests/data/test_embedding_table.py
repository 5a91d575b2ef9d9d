"""Embeddings of other tools: every layout read alike, what is ambiguous or broken refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.errors import UserError

NAMES = [f"{i:03d}" for i in range(6)]
X = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)


def wide(prefix: str = "emb_", start: int = 0) -> pd.DataFrame:
    """Columns in the order of text (emb_0, emb_1, emb_10, ...), as some tools sort them."""
    frame = pd.DataFrame(X, columns=[f"{prefix}{i + start}" for i in range(12)])
    return frame[sorted(frame.columns)]


def labels(path: Path, **columns: Any) -> Path:
    pd.DataFrame({"participant_id": [f"sub-{n}" for n in NAMES], **columns}).to_csv(path, sep="\t", index=False)
    return path


def _csv(path: Path) -> Path:
    wide().assign(subject_id=NAMES, site="A").to_csv(path / "t.csv", index=False)
    return path / "t.csv"


def _tsv(path: Path) -> Path:
    wide("feature_", 1).assign(participant_id=NAMES).to_csv(path / "t.tsv.gz", sep="\t", index=False)
    return path / "t.tsv.gz"


def _bare_numbers(path: Path) -> Path:
    frame = pd.DataFrame(X, index=pd.Index(NAMES, name="subject"))
    frame.columns = frame.columns.astype(str)
    frame.to_parquet(path / "t.parquet")
    return path / "t.parquet"


def _lists(path: Path) -> Path:
    pq.write_table(
        pa.table({"id": NAMES, "age": list(range(6)), "emb": [list(map(float, row)) for row in X]}), path / "t.parquet"
    )
    return path / "t.parquet"


def _arrays(path: Path) -> Path:
    np.savez(path / "t.npz", X=X, subject=np.array(NAMES))
    return path / "t.npz"


def _bytes(path: Path) -> Path:
    np.savez(path / "t.npz", X=X.astype(np.float64), subject=np.array(NAMES).astype("S"), note=np.array("made elsewhere"))
    return path / "t.npz"


@pytest.mark.parametrize("write", [_csv, _tsv, _bare_numbers, _lists, _arrays, _bytes])
def test_every_layout_gives_the_same_vectors_and_names(write: Any, tmp_path: Path) -> None:
    opened = open_embeddings(write(tmp_path), labels(tmp_path / "p.tsv", diagnosis=["a", "b"] * 3, score=range(6)))
    assert len(opened.columns) == 1
    table = opened.table("subject")
    assert table["subject"].tolist() == NAMES  # leading zeros and all
    np.testing.assert_allclose(opened.matrix("subject", opened.columns[0]), X, rtol=1e-6)
    np.testing.assert_allclose(opened.bags("subject", opened.columns[0])[:, 0], X, rtol=1e-6)
    assert table["diagnosis"].tolist() == ["a", "b"] * 3
    assert table["score"].tolist() == list(range(6))
    assert not table["seen"].any()
    assert opened.info["foreign"]
    assert "12 dimensions" in opened.notes[0]


def test_sessions_are_scans_and_labels_follow_them(tmp_path: Path) -> None:
    keys = pd.DataFrame({"participant_id": np.repeat(NAMES[:3], 2), "session_id": ["pre", "post"] * 3})
    pd.concat([keys, wide()], axis=1).to_csv(tmp_path / "t.csv", index=False)
    states = keys.assign(state=["before", "after"] * 3)[::-1]
    states["participant_id"] = "sub-" + states["participant_id"]
    states.to_csv(tmp_path / "s.tsv", sep="\t", index=False)
    opened = open_embeddings(tmp_path / "t.csv", tmp_path / "s.tsv")
    scans = opened.table("session")
    assert scans["state"].tolist() == ["before", "after"] * 3
    assert "state" not in opened.table("subject")
    np.testing.assert_allclose(opened.matrix("subject", "emb"), X.reshape(3, 2, 12).mean(1), rtol=1e-5)


def test_several_rows_of_a_scan_are_samples(tmp_path: Path) -> None:
    wide().assign(subject=np.repeat(NAMES[:2], 3), network=["a", "b", "c"] * 2).to_csv(tmp_path / "t.csv", index=False)
    opened = open_embeddings(tmp_path / "t.csv")
    assert opened.table("sample")["network"].tolist() == ["a", "b", "c"] * 2
    assert opened.table("session")["rows"].tolist() == [3, 3]
    assert "network" not in opened.table("session")
    np.testing.assert_allclose(opened.matrix("session", "emb"), X.reshape(2, 3, 12).mean(1), rtol=1e-5)
    assert opened.bags("subject", "emb").shape == (2, 3, 12)
    assert "up to 3 rows per scan" in opened.notes[-1]


def test_tokens_become_rows_and_padding_none(tmp_path: Path) -> None:
    tokens = X.reshape(2, 3, 12).copy()
    tokens[1, 2] = np.nan
    np.savez(tmp_path / "t.npz", tokens=tokens, subject=np.array(["s1", "s2"]), age=np.array([30, 40]))
    opened = open_embeddings(tmp_path / "t.npz")
    assert opened.table("sample")["token"].tolist() == [0, 1, 2, 0, 1]
    assert opened.table("subject")["age"].tolist() == [30, 40]
    np.testing.assert_allclose(opened.matrix("subject", "tokens")[1], X[3:5].mean(0), rtol=1e-5)


def test_several_embeddings_and_the_choice_of_some(tmp_path: Path) -> None:
    frame = pd.concat([wide("a_"), wide("b_"), pd.DataFrame({"subject": NAMES, "lh_thick": 1.5, "lh_area": 2.0})], axis=1)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert open_embeddings(tmp_path / "t.csv").columns == ["a", "b"]
    chosen = open_embeddings(tmp_path / "t.csv", features=("b_", "lh_"))
    assert chosen.columns == ["b", "lh"]
    assert chosen.matrix("subject", "lh").tolist() == [[1.5, 2.0]] * 6
    assert "a_3" in chosen.table("subject")  # what is no feature stays a column of the table


def test_what_was_left_out_is_counted(tmp_path: Path) -> None:
    frame = wide().assign(subject=NAMES)
    pd.concat([frame, frame[:2]]).to_csv(tmp_path / "t.csv", index=False)
    people = pd.DataFrame({"participant_id": [*NAMES[:4], "x1", "x2", "x3"], "group": list("ababaab")})
    people.to_csv(tmp_path / "p.csv", index=False)
    opened = open_embeddings(tmp_path / "t.csv", tmp_path / "p.csv")
    assert len(opened.table("sample")) == 6
    notes = " | ".join(opened.notes)
    assert "2 rows of t.csv repeat another row exactly" in notes
    assert "2 of 6 subjects are not in p.csv" in notes
    assert "3 of 7 participants of p.csv have no embedding" in notes
    assert opened.table("subject")["group"].isna().tolist() == [False] * 4 + [True] * 2


def test_a_column_seen_is_believed(tmp_path: Path) -> None:
    wide().assign(subject=NAMES, seen=[True, False] * 3).to_csv(tmp_path / "t.csv", index=False)
    assert open_embeddings(tmp_path / "t.csv").table("subject")["seen"].tolist() == [True, False] * 3


def _broken(name: str, folder: Path) -> Path:
    path = folder / ("t.npz" if name in ("objects", "no subject array", "lengths") else "t.csv")
    frame = wide().assign(subject=NAMES)
    if name == "objects":
        np.savez(path, X=X, subject=np.array(NAMES, dtype=object))
    elif name == "no subject array":
        np.savez(path, con_01=np.zeros((9, 4)))
    elif name == "lengths":
        np.savez(path, a=X, b=X[:3], subject=np.array(NAMES))
    elif name == "nan":
        frame.loc[[1, 2], "emb_3"] = np.nan
    elif name == "inf":
        frame.loc[1, "emb_3"] = 1e300
    elif name == "text":
        frame["emb_4"] = frame["emb_4"].astype(object)
        frame.loc[0, "emb_4"] = "??"
    elif name == "no subject":
        frame = frame.drop(columns="subject")
    elif name == "two subjects":
        frame["participant_id"] = [*NAMES[1:], "x"]
    elif name == "nameless":
        frame.loc[2, "subject"] = None
    elif name == "no features":
        frame = frame[["subject", "emb_0"]]
    elif name == "seen":
        frame["seen"] = "maybe"
    elif name == "semicolons":
        frame.to_csv(path, index=False, sep=";")
        return path
    elif name == "no zip":
        path = folder / "t.npz"
        path.write_bytes(b"PK\x03\x04 cut short")
    elif name == "one array":
        path = folder / "t.npz"
        with path.open("wb") as stream:
            np.save(stream, X)
    elif name == "no gzip":
        path = folder / "t.csv.gz"
        path.write_bytes(b"plain")
        return path
    elif name == "kind":
        path = folder / "t.xlsx"
    if path.suffix != ".npz":
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("objects", "holds Python objects, which could run code"),
        ("no subject array", r"a 1-D array 'subject'.*con_01 9×4"),
        ("lengths", "one line per row"),
        ("nan", "2 rows of 2 subjects have NaN or infinite features in 'emb'"),
        ("inf", "1 rows of 1 subjects have NaN or infinite"),
        ("text", r"'emb_4' holds text \(\?\?\)"),
        ("no subject", "no column of subjects.*--subject-column"),
        ("two subjects", "'participant_id' or 'subject', which differ"),
        ("nameless", "1 rows have no 'subject'"),
        ("no features", "no features found.*--features"),
        ("seen", "'seen' must be true or false"),
        ("semicolons", "only one column"),
        ("no zip", "not a readable npz file"),
        ("one array", "holds a single array"),
        ("no gzip", "not a readable table"),
        ("kind", "save it as parquet, csv, tsv or npz"),
    ],
)
def test_what_is_refused(name: str, message: str, tmp_path: Path) -> None:
    path = _broken(name, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_embeddings(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_lists_of_unequal_length_and_lists_beside_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"subject": NAMES[:2], "emb": [[1.0, 2.0], [1.0]]}), path)
    with pytest.raises(UserError, match="the lists in 'emb' are of 1 to 2 numbers"):
        open_embeddings(path)
    pq.write_table(pa.table({"subject": NAMES[:2], "emb": [[1.0, 2.0]] * 2, "q_1": [1, 2], "q_2": [3, 4]}), path)
    with pytest.raises(UserError, match="both emb and columns q_1 to q_2 could be the features; choose with --features"):
        open_embeddings(path)
    assert open_embeddings(path, features=("emb",)).table("subject")["q_1"].tolist() == [1, 2]
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="not a readable parquet file"):
        open_embeddings(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"participant_id": ["x1", "x2"]}, r"none of its 2 participants \(e.g. 'x1'\) is among the 6 of .* \(e.g. '000'\)"),
        ({"participant_id": ["000", "000"]}, "two lines for 000"),
        ({"name": ["000", "001"]}, "no column participant_id"),
        ({"participant_id": ["000", "001"], "session_id": ["a", "b"]}, "its sessions and runs are not those of"),
    ],
)
def test_tables_of_participants_that_do_not_fit(columns: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    pd.DataFrame({**columns, "group": ["a", "b"]}).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(UserError, match=message):
        open_embeddings(_csv(tmp_path), tmp_path / "p.csv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t.csv: no such file"):
        open_embeddings(tmp_path / "t.csv")
    with pytest.raises(UserError, match="no embeddings here"):
        open_embeddings(tmp_path / "folder")


def test_the_subject_column_may_be_named(tmp_path: Path) -> None:
    wide().assign(who=NAMES).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"who": NAMES, "group": list("ababab")}).to_csv(tmp_path / "p.csv", index=False)
    opened = open_embeddings(tmp_path / "t.csv", tmp_path / "p.csv", subject="who")
    assert opened.table("subject")["group"].tolist() == list("ababab")
    with pytest.raises(UserError, match=r"no column 'whom' \(did you mean 'who'\?\)"):
        open_embeddings(tmp_path / "t.csv", subject="whom")
