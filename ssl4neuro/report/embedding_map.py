"""A t-SNE map of the embeddings of held-out subjects, coloured by the target: an illustration, never evidence."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.errors import UserError
from ssl4neuro.report import evidence_figures
from ssl4neuro.report.page import Figure, plural
from ssl4neuro.report.results_folder import Results

LEAST, MOST = 8, 1500  # points; more make the page heavy and show no more
EXACT = 400  # up to here without the tree approximation
CAVEAT = (
    "t-SNE keeps neighbours together and nothing else: distances between groups, their sizes and the axes mean nothing, and"
    " groups can appear where there are none. It is an illustration; the evidence is in the numbers."
)
KEYS = ("subject", "session", "run", "row")


def map_figure(results: Results) -> tuple[list[Figure], str]:
    """The map, or why it is left out. Points carry no names."""
    place = Path(str(results.source.get("embeddings") or ""))
    if not results.source.get("embeddings") or results.own.get("baseline"):
        return [], "The map of embeddings is left out: the results do not say which embeddings they come from."
    if not (place / "embeddings.json").is_file() and not place.is_file():
        return [], f"The map of embeddings is left out: the embeddings '{place.name}' are not at hand."
    held = results.held_out(results.own["name"])
    if not len(held):
        return [], "The map of embeddings is left out: predictions.tsv is missing, so it is not known who was held out."
    try:
        matrix, label = _points(place, results, held)
    except UserError as error:
        return [], f"The map of embeddings is left out: {place.name} {str(error).removeprefix(str(place)).lstrip(': ')}."
    if len(matrix) < LEAST:
        return [], f"The map of embeddings is left out: {plural(len(matrix), 'point')} of held-out subjects are too few."
    n = held["subject"].nunique()
    xy = tsne(matrix, int(results.settings.get("seed") or 0))
    target, name = results.record.get("target"), results.own["name"]
    caption = f"{plural(len(matrix), str(results.own['unit']))} of {plural(n, 'held-out subject')}, by '{target}'. {CAVEAT}"
    alt = f"t-SNE map of the embedding '{name}' of {plural(n, 'held-out subject')}, coloured by {target}. {CAVEAT}"
    return [Figure("Map of held-out embeddings", evidence_figures.scatter(xy, label), caption, alt=alt)], ""


def tsne(matrix: Float[np.ndarray, "n dim"], seed: int) -> Float[np.ndarray, "n 2"]:
    """t-SNE of standardised vectors, started from their principal components (Kobak and Berens, Nat Commun 10, 2019)."""
    from sklearn.manifold import TSNE

    spread = matrix.std(0, dtype=np.float64)
    scaled = (matrix - matrix.mean(0, dtype=np.float64))[:, spread > 1e-12] / spread[spread > 1e-12]
    if scaled.shape[1] < 2:
        scaled = np.pad(scaled, ((0, 0), (0, 2 - scaled.shape[1])))
    perplexity = min(30.0, (len(matrix) - 1) / 3)
    method = "exact" if len(matrix) <= EXACT else "barnes_hut"
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, method=method).fit_transform(scaled)
    return np.asarray(found, dtype=np.float64)


def _points(place: Path, results: Results, held: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and labels of the held-out rows, in the order of the embeddings; whoever the encoder saw stays out."""
    from ssl4neuro.data.embedding_table import open_embeddings

    participants = results.source.get("participants")
    opened = open_embeddings(place, str(participants) if participants else None)
    unit, name = str(results.own["unit"]), str(results.own["name"])
    if unit not in ("sample", "session", "subject") or name not in opened.columns_of(unit):  # type: ignore[arg-type]
        raise UserError(f"{place}: has no embedding '{name}' of a {unit}")
    table = opened.table(unit).reset_index(drop=True)  # type: ignore[arg-type]
    keys = [key for key in KEYS if key in held and key in table]
    first = held[held["repeat"] == held["repeat"].min()] if "repeat" in held else held
    names = first[keys].astype(str).agg("\t".join, axis=1)
    truth = dict(zip(names, first["truth"], strict=True))
    own = table[keys].fillna("").astype(str).agg("\t".join, axis=1)
    rows = np.flatnonzero(own.isin(list(truth)).to_numpy() & ~table["seen"].to_numpy(dtype=bool))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    label = own.iloc[rows].map(truth).to_numpy(dtype=object)
    matrix = opened.matrix(unit, name)[rows]  # type: ignore[arg-type]
    return matrix, label.astype(str) if results.classes else label.astype(np.float64)
