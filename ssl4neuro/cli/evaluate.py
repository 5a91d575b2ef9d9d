"""`ssl4neuro embed`, `probe`, `identify`: embeddings of a cohort and what they tell."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


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
) -> int:
    """Embed a cohort with a pretrained model: one row per sample and one per scan.

    Args:
        run: run folder or a checkpoint in it.
        cohort: prepared cohort.
        out: embeddings folder to write.
        which: the checkpoint of the best validation, or the last one.
        adapt: differences to bridge where that is not exact: grid, mask, tr, template.
        batch_scans: scans per batch.
    """
    from ssl4neuro.evaluate.embed import embed as run_embed

    print(run_embed(run, cohort, out, which=which, adapt=adapt, batch_scans=batch_scans))
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
    probe: str = "linear",
    folds: int = 5,
    repeats: int = 1,
    permutations: int = 1000,
    seed: int = 0,
    cohort: Path | None = None,
    baselines: bool = True,
    allow_overlap: bool = False,
) -> int:
    """Predict a label from frozen embeddings on unseen subjects, beside simple baselines in the same folds.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote.
        target: column of the samples, sessions.tsv or participants.tsv.
        out: results folder to write.
        unit: what one prediction is about; by default the level at which the target varies.
        column: embedding to use; by default joint, else every modality; `all` for every one.
        site: column of the scanner or centre.
        leave_site_out: one fold per site.
        probe: linear, knn, or attention (which pools the clips of a subject itself), or package.module:Class.
        folds: folds over unseen subjects.
        repeats: repetitions with other folds.
        permutations: for the p-value.
        seed: of folds, bootstrap and permutations.
        cohort: prepared cohort for the baselines; by default the one that was embedded.
        baselines: also run the baselines.
        allow_overlap: test on subjects that the encoder has seen, and say so in the result.
    """
    from ssl4neuro.evaluate.probe import probe as run_probe
    from ssl4neuro.evaluate.results import render

    result = run_probe(
        embeddings, target=target, out=out, unit=unit, column=column, site=site, leave_site_out=leave_site_out, probe=probe,
        folds=folds, repeats=repeats, permutations=permutations, seed=seed, cohort=cohort, baselines=baselines,
        allow_overlap=allow_overlap,
    )  # fmt: skip
    print(render(result))
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
