"""`ssl4neuro explain`: what a run's encoders look at in subjects that they have not seen, and whether that was learned."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from ssl4neuro import contract
from ssl4neuro.adapt import adapt_batch
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embed import clip_config
from ssl4neuro.evaluate.explain_fill import mean_maps
from ssl4neuro.evaluate.explain_inputs import Encode, Inputs, embed_rows
from ssl4neuro.evaluate.explain_model import METHODS, Explanation, Method, explain_model
from ssl4neuro.evaluate.explain_parts import TABLES, ExplainConfig
from ssl4neuro.evaluate.explain_summary import Rows, compare, part_table, rows_of, verdicts
from ssl4neuro.evaluate.explain_target import Answer, Question, ask, read_out
from ssl4neuro.explain import feature_map, reinitialise
from ssl4neuro.manifest import file_sha256
from ssl4neuro.model import Model
from ssl4neuro.pretrained import Pretrained, load
from ssl4neuro.progress import progress

SANITY_SUBJECTS = 8  # enough to tell 0.9 from less, at a fraction of the cost
HELD_OUT = "heldout"


@dataclass
class Result:
    """Everything that is written."""

    question: Question
    rows: Rows  # the explained ones
    methods: tuple[Method, ...]
    config: ExplainConfig
    found: dict[str, Explanation] = field(default_factory=dict)  # by modality
    answers: dict[str, Answer] = field(default_factory=dict)  # by modality
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # regions, bands, patches, phases, sanity, probes
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    out: Path | None = None  # where it was written


def explain(
    run: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    target: str | None = None,
    method: Literal["eigencam", "occlusion", "all"] = "all",
    modality: Collection[str] = (),
    network: Collection[str] = (),
    subjects: str = HELD_OUT,
    column: str | None = None,
    which: Literal["best", "last"] = "best",
    adapt: Collection[str] = (),
    config: ExplainConfig | None = None,
    randomisations: int = 2,
    folds: int = 5,
    seed: int = 0,
) -> Result:
    """Write maps (NIfTI), regions.tsv, bands.tsv, patches.tsv, phases.tsv, probes.tsv, sanity.tsv, figures and explain.json.

    Maps lie on the cohort's grid; on that of training where the cohort had to be adapted to it.

    Args:
        run: run folder or checkpoint of `pretrain`.
        cohort: prepared cohort; checked against the checkpoint's contract. Only subjects unseen by the run are explained.
        out: folder to create.
        target: label that a linear probe reads off the embedding; None explains the embedding itself.
        method: Eigen-CAM, occlusion or both.
        modality: only these.
        network: only components of these networks.
        subjects: `heldout`, or some of them, with commas.
        column: `joint` to explain the fused embedding; by default each encoder's own.
        which: best or last checkpoint.
        adapt: differences to bridge although that is not exact: see `contract.ADAPTATIONS`.
        config: atlas, bands, patches.
        randomisations: networks with random weights for the sanity check.
        folds: of the probe, over unseen subjects.
        seed: of folds, bootstrap and random weights.

    Raises:
        UserError: the cohort does not meet the contract, nobody is unseen, labels that cannot be probed, no encoder that the
            method can explain, an unusable atlas, or `out` exists.
    """
    from ssl4neuro.evaluate.explain_write import write_explanation

    out, config = Path(out), config or ExplainConfig()
    if out.exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    if randomisations < 0:
        raise UserError(f"--randomisations {randomisations}: a number of 0 or more is needed")
    opened = Cohort.open(cohort)
    pretrained = load(run, which, Accelerator().device)
    inputs, changes = _inputs(pretrained, opened, adapt)
    seen = set(pretrained.checkpoint.manifest.overlap(opened.name, opened.content_hashes()))
    chosen = () if subjects == HELD_OUT else tuple(word.strip() for word in subjects.split(",") if word.strip())
    question = ask(opened, seen, target=target, networks=tuple(network), subjects=chosen, folds=folds, seed=seed)
    if not question.tested.any():
        raise UserError(f"{opened.path}: none of these subjects has a row to explain; check --subjects, --network and --target")
    settings = {
        "target": target, "method": method, "network": sorted(network), "column": column, "which": which,
        "adapt": sorted(adapt), "randomisations": randomisations, "folds": folds, "seed": seed, **asdict(config),
    }  # fmt: skip
    result = Result(
        question,
        rows_of(question, np.flatnonzero(question.tested)),
        METHODS if method == "all" else (method,),
        config,
        notes=[*pretrained.checkpoint.notes, *question.notes, *map(str, changes)],
        source={**_source(pretrained, opened, run), "settings": settings},
    )
    comparisons = []
    for name in tuple(modality) or inputs.modalities:
        methods = _methods(pretrained.model, inputs, name, result)
        if methods:
            comparisons += _explain_one(pretrained.model, inputs, name, methods, column, result, randomisations, seed)
    if not result.found:
        raise UserError(f"{run}: {result.notes[-1]}")
    _tabulate(result, seed)
    _check(result, comparisons)
    write_explanation(result, inputs, out)
    return replace(result, out=out)


def _explain_one(
    model: Model,
    inputs: Inputs,
    name: str,
    methods: tuple[Method, ...],
    column: str | None,
    result: Result,
    randomisations: int,
    seed: int,
) -> list[pd.DataFrame]:
    """Explain one modality, and compare with networks of random weights whose probes are fitted anew."""
    question, few = result.question, _few(result.rows.subjects)
    where = np.flatnonzero(question.tested)
    rows = question.rows[where]

    volumes = "occlusion" in methods and inputs.batch(rows[:1])["valid"][name].ndim == 5
    fill = mean_maps(inputs, question, name) if volumes and result.config.fill == "mean" else None

    def through(model: Model, which: np.ndarray, show: bool) -> tuple[Explanation, Answer | None]:
        answer = None
        if question.problem is not None and "occlusion" in methods:
            answer = read_out(
                question, embed_rows(model, inputs, question.rows, name, column or name, result.config.batch), seed
            )
        direction = None if answer is None else {name: answer.direction[where][which]}
        own = None if fill is None else {name: fill.take(which)}
        found = explain_model(
            model, inputs, rows[which], direction, fill=own, modalities=(name,), methods=methods, column=column,
            config=result.config, show=show,
        )  # fmt: skip
        return found[name], answer

    trained, answer = through(model, np.arange(len(where)), True)
    result.found[name] = trained
    if answer is not None:
        result.answers[name] = answer
    own = _subset(trained, few)
    comparisons = []
    with progress(f"random weights, {name}", randomisations, "network") as bar:
        for k in range(randomisations):
            random, _ = through(reinitialise(model, seed * 1000 + k), few, False)
            comparisons.append(compare(own, random, result.rows.take(few)).assign(draw=k))
            bar.advance()
    return comparisons


def _inputs(pretrained: Pretrained, cohort: Cohort, adapt: Collection[str]) -> tuple[Inputs, list[contract.Difference]]:
    saved, found = pretrained.checkpoint, cohort.info["contract"]
    masks = {} if cohort.mask is None else {"map": cohort.mask}
    changes = contract.enforce(saved.contract, found, adapt=adapt, masks=masks, where=str(cohort.path))
    affine = np.array(saved.contract["map"]["affine"]) if "map" in saved.contract and "map" in found else None
    moved = (lambda batch: adapt_batch(batch, saved.contract, found, changes)) if changes else None
    device = next(pretrained.model.parameters()).device
    return Inputs(cohort, pretrained.model.modalities, device, clip_config(saved.contract), moved, affine), changes


def _methods(model: Model, inputs: Inputs, name: str, result: Result) -> tuple[Method, ...]:
    """Those that can explain this encoder; a note for the one that cannot."""
    if name not in inputs.modalities:
        raise UserError(f"--modality: run and cohort do not both have '{name}', they share {', '.join(inputs.modalities)}")
    if "eigencam" not in result.methods:
        return result.methods
    encoder: Any = model.encoders[name]
    encode = Encode(model, inputs.batch(result.question.rows[result.question.tested][:1]), name, name)
    try:
        with torch.no_grad():
            feature_map(encoder, encoder(encode.x, **encode.arguments), encode.x, result.config.level)
    except UserError as error:
        result.notes.append(f"{name}: {error}")
        return tuple(m for m in result.methods if m != "eigencam")
    return result.methods


def _few(subjects: np.ndarray) -> np.ndarray:
    """Rows of at most 8 subjects, evenly over their names."""
    names = np.unique(subjects)
    chosen = names[np.unique(np.linspace(0, len(names) - 1, SANITY_SUBJECTS).round().astype(int))]
    return np.flatnonzero(np.isin(subjects, chosen))


def _subset(found: Explanation, which: np.ndarray) -> Explanation:
    cams = [found.cams[i] for i in which] if found.cams else []
    changes = {kind: values[which] for kind, values in found.changes.items()}
    return Explanation(found.modality, found.rows[which], cams, None, changes, found.parts, found.grid, found.parcels)


def _tabulate(result: Result, seed: int) -> None:
    """Parts with intervals, and how good the probes are that they explain."""
    for explanation in result.found.values():
        for kind in explanation.changes:
            table = part_table(explanation, kind, result.rows, signed=bool(result.answers), seed=seed)
            name = TABLES[kind]
            result.tables[name] = pd.concat(
                [*([result.tables[name]] if name in result.tables else []), table], ignore_index=True
            )
    lines = [
        {
            "modality": modality, "network": group, "metric": metric, "value": found.value, "ci_low": found.low,
            "ci_high": found.high, "n_subjects": len(np.unique(result.rows.subjects[result.rows.groups == group])),
        }
        for modality, answer in result.answers.items()
        for group, (metric, found) in answer.skill.items()
    ]  # fmt: skip
    if lines:
        result.tables["probes"] = pd.DataFrame(lines)


def _check(result: Result, comparisons: list[pd.DataFrame]) -> None:
    """Warnings: probes at chance, and explanations that random weights give, too."""
    if "probes" in result.tables:
        chance = 0.5 if result.question.problem is not None and result.question.problem.classes else 0.0
        for row in result.tables["probes"].to_dict("records"):
            if not row["ci_low"] > chance:
                found = f"{row['metric']} {row['value']:.2f}, {row['ci_low']:.2f} to {row['ci_high']:.2f}"
                result.warnings.append(
                    f"{row['modality']}, {row['network']}: the probe of '{result.question.target}' is not above chance on"
                    f" held-out subjects ({found}), so do not read its occlusion"
                )
    if comparisons:
        result.tables["sanity"] = verdicts(_by_draw(comparisons))
        for row in result.tables["sanity"].to_dict("records"):
            if row["alike"]:
                rho = np.nanmax([row["spearman"], row["spearman_samples"]])
                result.warnings.append(
                    f"{row['modality']}, {row['network']}: {row['method']} is alike with random weights (rank correlation"
                    f" {rho:.2f}): it shows the input, not what was learned"
                )


def _by_draw(comparisons: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """One table per random network, with all modalities."""
    whole = pd.concat(comparisons, ignore_index=True)
    return [part.drop(columns="draw") for _, part in whole.groupby("draw", sort=True)]


def _source(pretrained: Pretrained, cohort: Cohort, run: str | Path) -> dict[str, Any]:
    saved = pretrained.checkpoint
    return {
        "name": cohort.name,
        "cohort": str(cohort.path),
        "cohort_sha256": file_sha256(cohort.path / "cohort.json"),
        "run": str(run),
        "step": saved.step,
        "checkpoint_sha256": saved.checkpoint_sha256,
        "contract": json.loads(json.dumps(saved.contract)),
    }
