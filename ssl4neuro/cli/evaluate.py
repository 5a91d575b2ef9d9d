"""`ssl4neuro embed`, `probe`, `identify`: embeddings of a cohort and what they tell."""

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app
from ssl4neuro.errors import UserError


@app.command
def embed(
    run: Positional[Path],
    cohort: Positional[Path],
    out: Positional[Path],
    /,
    *,
    which: Literal["best", "last"] = "best",
    adapt: tuple[str, ...] = (),
    batch_scans: int = 4,
    layers: bool = False,
) -> int:
    """Embed a cohort with a pretrained model: one row per sample and one per scan.

    Args:
        run: run folder or a checkpoint in it.
        cohort: prepared cohort.
        out: embeddings folder to write.
        which: the checkpoint of the best validation, or the last one.
        adapt: differences to bridge where that is not exact: grid, mask, tr, template.
        batch_scans: scans per batch.
        layers: also write the features of every stage of the encoders, for `probe --column layers`.
    """
    from ssl4neuro.evaluate.embed import embed as run_embed

    print(run_embed(run, cohort, out, which=which, adapt=adapt, batch_scans=batch_scans, layers=layers))
    return 0


@app.command
def probe(
    embeddings: Positional[Path],
    /,
    *,
    target: str,
    out: Path,
    unit: Literal["sample", "session", "subject"] | None = None,
    column: str | None = None,
    site: str | None = None,
    leave_site_out: bool = False,
    harmonise: Literal["combat"] | None = None,
    preserve: tuple[str, ...] = (),
    unseen_sites: Literal["refuse", "pool"] = "refuse",
    nuisance: tuple[str, ...] | None = None,
    probe: str = "linear",
    folds: int = 5,
    repeats: int = 1,
    permutations: int = 1000,
    seed: int = 0,
    cohort: Path | None = None,
    baselines: bool = True,
    allow_overlap: bool = False,
    participants: Path | None = None,
    subject_column: str | None = None,
    features: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
    label_efficiency: bool = False,
    equivalence_margin: float = 0.1,
    task: Literal["binary", "multiclass", "regression"] | None = None,
    positive: str | None = None,
) -> int:
    """Predict a label from frozen embeddings on unseen subjects, beside simple baselines in the same folds.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote, or a parquet, csv, tsv or npz file of features from another tool.
        target: column of the samples, sessions.tsv or participants.tsv; several with commas, then p-values are also corrected
            for their number and --out gets a results folder for each.
        out: results folder to write.
        unit: what one prediction is about; by default the level at which the target varies.
        column: embedding to use; by default joint, else every modality; `all` for every one, `layers` for every stage.
        site: column of the scanner or centre.
        leave_site_out: one fold per site.
        harmonise: take the effects of --site out of embeddings and baselines, fitted on the training rows of every fold.
        preserve: columns whose effect harmonisation keeps, e.g. age,sex; never the target.
        unseen_sites: a test site without training rows is refused, or (pool) its rows are taken as they are.
        nuisance: columns of the nuisance-only model, e.g. age,sex,mean_fd; also regressed out of every embedding.
        probe: linear, ridge, svm, knn, mlp, or attention (which pools the clips of a subject itself), or package.module:Class.
        folds: folds over unseen subjects.
        repeats: repetitions with other folds.
        permutations: for the p-value.
        seed: of folds, bootstrap and permutations.
        cohort: prepared cohort for the baselines; by default the one that was embedded.
        baselines: also run the baselines.
        allow_overlap: test on subjects that the encoder has seen, and say so in the result.
        participants: table of labels of the subjects (and sessions) in a file of another tool.
        subject_column: column of subjects in such a file, if it is not called subject, participant_id or id.
        features: list columns, arrays or prefixes of the feature columns of such a file, e.g. emb_; by default all.
        prefix: also probe the first dimensions alone, e.g. 8,16,32.
        label_efficiency: also train on 1 % to 100 % of the training subjects.
        equivalence_margin: AUC and balanced accuracy this close to chance count as equivalent to it; 0 for no such test.
        task: by default numbers with more than ten values are a regression target, everything else classes.
        positive: value of the target that counts as positive.
    """
    from ssl4neuro.evaluate.probe import probe as run_probe
    from ssl4neuro.evaluate.probe_targets import probe_targets
    from ssl4neuro.evaluate.probe_targets import render as render_targets
    from ssl4neuro.evaluate.results import render

    options: dict[str, Any] = {
        "out": out, "unit": unit, "column": column, "site": site, "leave_site_out": leave_site_out, "harmonise": harmonise,
        "preserve": names_of(preserve), "unseen_sites": unseen_sites,
        "nuisance": None if nuisance is None else names_of(nuisance), "probe": probe, "folds": folds, "repeats": repeats,
        "permutations": permutations, "seed": seed, "cohort": cohort, "baselines": baselines, "allow_overlap": allow_overlap,
        "participants": participants, "subject_column": subject_column, "features": names_of(features),
        "prefix": numbers_of(prefix, "prefix"), "label_efficiency": label_efficiency,
        "equivalence_margin": equivalence_margin, "task": task, "positive": positive, "show": True,
    }  # fmt: skip
    targets = names_of((target,))
    if len(targets) > 1:
        print(render_targets(probe_targets(embeddings, targets, **options)))
    else:
        print(render(run_probe(embeddings, target=target, **options)))
    return 0


@app.command
def identify(
    embeddings: Positional[Path],
    /,
    other: Positional[Path | None] = None,
    *,
    out: Path | None = None,
    allow_overlap: bool = False,
    seed: int = 0,
) -> int:
    """Identify unseen subjects by their second scan, from session embeddings, beside FNC and raw maps.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote.
        other: embeddings of the other scans (second halves, second visits); by default the second scan in the same folder.
        out: JSON file to write.
        allow_overlap: also use subjects that the encoder has seen.
        seed: of the bootstrap.
    """
    from ssl4neuro.evaluate.identify import identify_scans, render

    print(render(identify_scans(embeddings, other, out=out, allow_overlap=allow_overlap, seed=seed)))
    return 0


def names_of(given: tuple[str, ...]) -> tuple[str, ...]:
    """Names that were given with commas, with spaces, or with both."""
    return tuple(name.strip() for part in given for name in part.split(",") if name.strip())


def numbers_of(given: tuple[str, ...], option: str) -> tuple[int, ...]:
    """Whole numbers given one by one or separated by commas."""
    try:
        return tuple(int(name) for name in names_of(given))
    except ValueError:
        raise UserError(f"--{option} {' '.join(given)}: whole numbers are needed, e.g. 8,16,32") from None
