"""`ssl4neuro explain`: what a pretrained model looks at in unseen subjects."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def explain(
    run: Positional[Path],
    cohort: Positional[Path],
    out: Positional[Path],
    /,
    *,
    target: str | None = None,
    method: Literal["eigencam", "occlusion", "all"] = "all",
    atlas: str = "seitzman",
    fill: Literal["mean", "zero"] = "mean",
    network: tuple[str, ...] = (),
    modality: tuple[str, ...] = (),
    subjects: str = "heldout",
    column: Literal["joint"] | None = None,
    bands: tuple[float, ...] = (),
    patch: int = 8,
    phases: int = 8,
    level: int | None = None,
    randomisations: int = 2,
    which: Literal["best", "last"] = "best",
    adapt: tuple[str, ...] = (),
    batch: int = 32,
    seed: int = 0,
) -> int:
    """Show where in the brain, the spectrum or the picture a model looks: maps in MNI space, tables with intervals, figures.

    Args:
        run: run folder or a checkpoint in it.
        cohort: prepared cohort; only subjects that the run has not seen are explained.
        out: folder to write.
        target: label that a probe reads off the embedding; without one the embedding itself is explained.
        method: eigencam (what dominates the features), occlusion (what the answer rests on), or both.
        atlas: seitzman, dosenbach or power (voxels nearest to published coordinates), or an image of labels.
        fill: in the place of a region: the mean map of the network over training subjects, or 0.
        network: only components of these networks.
        modality: only these.
        subjects: heldout, or some unseen subjects with commas between.
        column: joint, for the embedding of all modalities together.
        bands: edges of the frequency bands, Hz.
        patch: side of the squares of clips, pixels.
        phases: parts of a clip.
        level: of the features, for Eigen-CAM.
        randomisations: networks with random weights to compare with.
        which: the checkpoint of the best validation, or the last one.
        adapt: differences to bridge where that is not exact: grid, mask, tr, template, cyclic, interval, spacing, colour.
        batch: rows at once.
        seed: of folds, bootstrap and random weights.
    """
    from ssl4neuro.evaluate.explain import explain as run_explain
    from ssl4neuro.evaluate.explain_parts import ExplainConfig
    from ssl4neuro.evaluate.explain_write import render

    config = ExplainConfig(atlas=atlas, fill=fill, patch=patch, phases=phases, level=level, batch=batch)
    if bands:
        config = ExplainConfig(**{**vars(config), "bands": bands})
    result = run_explain(
        run, cohort, out, target=target, method=method, modality=modality, network=network, subjects=subjects, column=column,
        which=which, adapt=adapt, config=config, randomisations=randomisations, seed=seed,
    )  # fmt: skip
    print(f"{render(result)}\n\n{result.out}")
    return 0
