import faiss
import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.retrieve import search
from ssl4neuro.retrieve.index import build_index
from ssl4neuro.retrieve.query import query
from ssl4neuro.retrieve.store import Index


def brute_force(queries, vectors, k, allowed=None):
    """Rows by (cosine, row) with numpy alone."""
    cosine = queries.astype(np.float64) @ vectors.astype(np.float64).T
    cosine /= np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] * np.linalg.norm(vectors.astype(np.float64), axis=1)
    cosine = cosine.round(6)
    if allowed is not None:
        cosine[:, ~allowed] = -np.inf
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, 1)


@pytest.fixture
def indexed(embed, tmp_path):
    source = embed()
    return Embeddings.open(source), build_index(source, tmp_path / "index")


def test_row_equals_brute_force(indexed):
    embeddings, index = indexed
    x = embeddings.matrix("sample", "map")
    for row in (0, 57, 119):
        others = np.arange(120) != row
        rows, scores = brute_force(x[row : row + 1], x, 10, others)
        found = query(index, row=row, source="map")
        assert found["row"].tolist() == rows[0].tolist()
        assert found["rank"].tolist() == list(range(1, 11))
        np.testing.assert_allclose(found["score"], scores[0], atol=2e-6)
        pd.testing.assert_series_equal(found["subject"], index.metadata["subject"].iloc[rows[0]].reset_index(drop=True))


def test_across_modalities_uses_the_shared_space_and_finds_the_partner(indexed):
    embeddings, index = indexed
    start, end = embeddings.matrix("sample", "course_projected"), embeddings.matrix("sample", "map_projected")
    rows, _ = brute_force(start, end, 10)
    for row in (0, 33):
        assert query(index, row=row, source="course", target="map")["row"].tolist() == rows[row].tolist()
    own = [row in query(index, row=row, source="course", target="map")["row"].tolist() for row in range(40)]
    assert np.mean(own) > 0.9
    assert 5 not in query(index, row=5, source="course", target="map", include_self=False)["row"].tolist()


def test_batch_from_the_same_cohort(indexed):
    embeddings, index = indexed
    x = embeddings.matrix("sample", "map")
    found = query(index, like=embeddings.path, source="map", k=3)
    assert list(found.columns[:4]) == ["query_row", "rank", "score", "row"]
    assert len(found) == 360
    assert not (found["query_row"] == found["row"]).any()
    cosine = brute_force(x, x, 4)[0][:, 1:]  # the first is the row itself
    assert (found["row"].to_numpy().reshape(120, 3) == cosine).all()
    with_self = query(index, like=embeddings.path, source="map", k=1, include_self=True)
    assert (with_self["query_row"] == with_self["row"]).all()


def test_batch_from_another_cohort(indexed, embed):
    embeddings, index = indexed
    other = Embeddings.open(embed("other", scans=5, seed=9, name="elsewhere", cohort_sha256="beef"))
    rows, scores = brute_force(other.matrix("sample", "map"), embeddings.matrix("sample", "map"), 7)
    found = query(index, like=other.path, source="map", k=7)
    assert (found["row"].to_numpy().reshape(20, 7) == rows).all()
    np.testing.assert_allclose(found["score"].to_numpy().reshape(20, 7), scores, atol=2e-6)
    with pytest.raises(UserError, match="another dataset"):
        query(index, like=other.path, exclude_subject=True)


def test_filters_are_exact(indexed):
    embeddings, index = indexed
    x, table = embeddings.matrix("sample", "map"), embeddings.table("sample")
    allowed = ((table["site"] == "A") & table["network"].isin(["DMN", "SC"]) & (table["age"] >= 24)).to_numpy()
    rows, _ = brute_force(x[8:9], x, 10, allowed & (np.arange(120) != 8))
    found = query(index, row=8, source="map", where=("site==A", "network in DMN,SC", "age>=24"))
    assert found["row"].tolist() == rows[0].tolist()
    assert query(index, row=8, source="map", where="site==A")["site"].eq("A").all()


def test_k_results_whenever_k_exist(indexed):
    _, index = indexed
    few = query(index, row=0, source="map", k=500, where="subject==sub-03")
    assert sorted(few["row"]) == list(range(24, 32))
    assert len(query(index, row=0, source="map", k=500)) == 119
    assert len(query(index, row=0, source="map", k=500, include_self=True)) == 120
    assert len(query(index, row=0, source="map", k=500, exclude_subject=True)) == 112


def test_excluded_subjects_in_a_batch(indexed):
    embeddings, index = indexed
    x, subject = embeddings.matrix("sample", "map"), embeddings.table("sample")["subject"].to_numpy(object)
    found = query(index, like=embeddings.path, source="map", k=4, exclude_subject=True)
    expected = np.vstack([brute_force(x[i : i + 1], x, 4, subject != subject[i])[0] for i in range(120)])
    assert (found["row"].to_numpy().reshape(120, 4) == expected).all()


def test_nothing_left_for_some_queries(indexed):
    embeddings, index = indexed
    found = query(index, like=embeddings.path, source="map", k=4, where="subject==sub-03", exclude_subject=True)
    assert set(found["query_row"]) == set(range(120)) - set(range(24, 32))


def test_duplicates_come_in_the_order_of_rows(embed, tmp_path, clustered):
    x = clustered(400, 8, 0)
    x[50:350] = x[50]  # far more ties than the spare candidates
    index = build_index(embed(scans=100, vectors={"map": x}), tmp_path / "index")
    found = query(index, row=200, k=20)
    assert found["row"].tolist() == list(range(50, 70))
    assert found["score"].eq(1.0).all()
    assert query(index, row=60, k=20)["row"].tolist() == [*range(50, 60), *range(61, 71)]
    batch = query(index, like=tmp_path / "embeddings", k=5)
    assert batch[batch["query_row"] == 300]["row"].tolist() == [50, 51, 52, 53, 54]


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "pq"])
def test_approximate_kinds_with_filters_and_large_k(embed, tmp_path, monkeypatch, kind, clustered):
    x = clustered(800, 8, 2)
    index = build_index(embed(scans=200, vectors={"map": x}), tmp_path / "index", kind=kind)
    allowed = (index.metadata["site"] == "B").to_numpy()
    rows, _ = brute_force(x[4:5], x, 10, allowed & (np.arange(800) != 4))
    assert query(index, row=4, where="site==B")["row"].tolist() == rows[0].tolist()
    assert len(query(index, row=4, k=799)) == 799
    # without the exact path for small selections, faiss' own selector takes over
    monkeypatch.setattr(search, "EXACT_BELOW", 0)
    found = query(index, row=4, where="site==B")
    assert len(found) == 10
    assert found["site"].eq("B").all()
    assert len(set(found["row"]) & set(rows[0].tolist())) >= 8
    everything = query(index, row=4, k=int(allowed.sum()), where="site==B", include_self=True)
    assert sorted(everything["row"]) == np.flatnonzero(allowed).tolist()


def test_blocks_and_parts_do_not_change_the_answer(indexed, monkeypatch):
    embeddings, index = indexed
    whole = query(index, like=embeddings.path, source="map", where="seen==true")
    monkeypatch.setattr(search, "BLOCK", 7)
    monkeypatch.setattr(search, "BUDGET", 500)
    pd.testing.assert_frame_equal(query(index, like=embeddings.path, source="map", where="seen==true"), whole)


def test_reopened_index_answers_the_same(indexed):
    _, index = indexed
    pd.testing.assert_frame_equal(query(Index.open(index.path), row=3), query(index, row=3))
    pd.testing.assert_frame_equal(query(index.path, row=3), query(index, row=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint_sha256": "bb22" * 8}, "checkpoint: index aa11aa11aa11, embeddings bb22bb22bb22"),
        ({"contract": {"course": {"kind": "course", "tr": 0.8}}}, r"contract course\.tr: index 2\.0, embeddings 0\.8"),
        ({"contract": {"course": None}}, r"contract course\.kind: index course, embeddings nothing"),
    ],
)
def test_another_encoder_is_refused(indexed, embed, contract, change, message):
    _, index = indexed
    if "contract" in change:
        change = {"contract": {m: entry for m, entry in (contract | change["contract"]).items() if entry}}
    with pytest.raises(UserError, match=message) as error:
        query(index, like=embed("other", **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row": 120}, r"--row 120: .* rows go from 0 to 119"),
        ({"row": -1}, "--row -1"),
        ({}, "give either a row"),
        ({"row": 1, "like": "x"}, "give either a row"),
        ({"row": 1, "k": 0}, "k: 0 results"),
        ({"row": 1, "source": "corse"}, "did you mean 'course'"),
        ({"row": 1, "source": "course", "target": "cine"}, "no modality 'cine'"),
        ({"row": 1, "where": "network==DNM"}, "did you mean 'DMN'"),
        ({"row": 1, "device": "cuda"}, "sees no GPU"),
        ({"like": "nowhere"}, "no embeddings here"),
    ],
)
def test_bad_questions(indexed, monkeypatch, options, message):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(UserError, match=message):
        query(indexed[1], **options)


def test_no_shared_space(embed, tmp_path):
    index = build_index(embed(), tmp_path / "index", columns=["map", "course", "map_projected"])
    with pytest.raises(UserError, match="needs the column 'course_projected', which is not indexed"):
        query(index, row=0, source="course", target="map")


def test_projected_column_serves_within_a_modality_when_it_is_the_only_one(embed, tmp_path):
    source = embed()
    index = build_index(source, tmp_path / "index", columns=["map_projected"])
    x = Embeddings.open(source).matrix("sample", "map_projected")
    rows, _ = brute_force(x[:1], x, 5, np.arange(120) != 0)
    assert query(index, row=0, k=5)["row"].tolist() == rows[0].tolist()
    assert query(index, row=0, k=5, target="map")["row"].tolist() == rows[0].tolist()


def test_joint_is_the_default(embed, tmp_path, clustered):
    vectors = {"map": clustered(120, 8, 0), "joint": clustered(120, 8, 1)}
    index = build_index(embed(vectors=vectors), tmp_path / "index")
    rows, _ = brute_force(vectors["joint"][:1], vectors["joint"], 5, np.arange(120) != 0)
    assert query(index, row=0, k=5)["row"].tolist() == rows[0].tolist()


@pytest.mark.parametrize("failure", ["copy", "search"])
def test_gpu_that_fails_falls_back_to_the_cpu(indexed, monkeypatch, failure):
    """A GPU is announced, but it runs out of memory while copying or searching."""
    embeddings, index = indexed
    expected = query(index, like=embeddings.path, source="map")

    class Broken:
        def search(self, *_):
            raise RuntimeError("out of memory")

    def copy(*_):
        calls.append(1)
        if failure == "copy":
            raise RuntimeError("out of memory")
        return Broken()

    calls = []
    monkeypatch.setattr(search, "GPU_QUERIES", 1)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    pd.testing.assert_frame_equal(query(Index.open(index.path), like=embeddings.path, source="map"), expected)
    assert calls == [1]


def test_gpu_answers_are_ranked_exactly(indexed, monkeypatch):
    embeddings, index = indexed
    expected = query(index, like=embeddings.path, source="map")
    used = []

    def copy(_resources, _device, cpu):
        used.append(1)
        return cpu

    monkeypatch.setattr(search, "GPU_QUERIES", 1)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy, raising=False)
    pd.testing.assert_frame_equal(query(Index.open(index.path), like=embeddings.path, source="map"), expected)
    assert used
