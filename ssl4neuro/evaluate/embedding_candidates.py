"""Which embeddings a probe evaluates: columns, stages of the encoders, prefixes; and the table by stage."""

import re
from collections.abc import Sequence

import pandas as pd

from ssl4neuro.data.embeddings import Embeddings, Unit
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate, Row
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.prefix import with_prefixes
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.protocol import Probe

LAYER = re.compile(r"(.+)_layer(\d+)")


def embedding_candidates(
    opened: Embeddings, problem: Problem, probe: Probe, column: str | None = None, prefix: Sequence[int] = ()
) -> list[Candidate]:
    """One candidate per embedding, and one per embedding and length of `prefix`.

    Args:
        column: a name; `all` for every modality and `joint`; `layers` for every stage of the encoders and their outputs; by
            default `joint`, otherwise every modality.

    Raises:
        UserError: unknown column, no layers, or a prefix longer than the embedding.
    """
    read = opened.bags if getattr(probe, "bags", False) else opened.matrix  # it pools the samples of a unit itself
    found = []
    for name in columns_to_probe(opened, problem.unit, column):
        vectors = read(problem.unit, name)[problem.kept]
        found += with_prefixes(Candidate(name, ArrayFeatures(vectors), probe), prefix, vectors.shape[-1])
    return found


def columns_to_probe(opened: Embeddings, unit: Unit, column: str | None) -> list[str]:
    """Names of the columns that `column` stands for."""
    names = opened.columns_of(unit)
    own = [name for name in names if not name.endswith("_projected") and not LAYER.fullmatch(name)] or names
    if column is None:
        return ["joint"] if "joint" in own else own
    if column == "all" and "all" not in names:
        return own
    if column != "layers" or "layers" in names:
        return [column]
    staged = {name: LAYER.fullmatch(name) for name in names}
    layers = sorted((match[1], int(match[2]), name) for name, match in staged.items() if match)
    if not layers:
        raise UserError(f"{opened.path}: has no layers; embed the cohort again with --layers")
    outputs = [(modality, 10**9, modality) for modality in {m for m, _, _ in layers} if modality in names]
    return [name for _, _, name in sorted([*layers, *outputs])]


def layer_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Lines of the rows that are stages of an encoder, or its output: what is known at which depth."""
    matches = {row.name: LAYER.fullmatch(row.name) for row in rows if not row.baseline}
    staged = {match[1] for match in matches.values() if match}
    lines = []
    for row in rows:
        match = matches.get(row.name)
        if row.baseline or (match is None and row.name not in staged):
            continue
        place = {"modality": match[1], "layer": match[2]} if match else {"modality": row.name, "layer": "output"}
        numbers = {k: getattr(row, k) for k in ("metric", "value", "ci_low", "ci_high", "p", "n_subjects")}
        lines.append({**place, "model": row.name, **numbers})
    return pd.DataFrame(lines)
