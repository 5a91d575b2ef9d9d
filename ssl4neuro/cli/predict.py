"""`ssl4neuro predict`: a fine-tuned head on new data."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


@app.command
def predict(
    run: Positional[Path],
    cohort: Positional[Path],
    out: Positional[Path],
    /,
    *,
    frames: Literal["labelled", "first", "all"] = "labelled",
    tta: bool = False,
    which: Literal["best", "last"] = "best",
    adapt: tuple[str, ...] = (),
    batch: int = 8,
    overlays: bool = True,
) -> int:
    """Segment a cohort with a fine-tuned head: masks and maps as NIfTI on the grid of their sources, and tables.

    Args:
        run: run of `ssl4neuro finetune` or a checkpoint in it; the models of its folds are averaged.
        cohort: prepared cohort of clips.
        out: folder to write.
        frames: those with a mask (of a clip without, the first), the first of every clip, or all.
        tta: also segment mirrored clips and average.
        which: the checkpoint of the best validation, or the last one.
        adapt: differences to bridge where that is not exact: cyclic, interval, spacing, colour.
        batch: clips at a time.
        overlays: draw the most telling frame of every image.
    """
    from ssl4neuro.evaluate.predict import predict as run_predict

    print(run_predict(run, cohort, out, which=which, adapt=adapt, frames=frames, tta=tta, batch=batch, overlays=overlays))
    return 0
