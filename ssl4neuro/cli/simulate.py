"""`ssl4neuro simulate ica | cine`."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app, simulate_app


@simulate_app.command(name="ica")
def simulate_ica(
    out: Positional[Path],
    /,
    *,
    subjects: int = 40,
    design: Literal["pre-post"] = "pre-post",
    resolution: float = 8.0,
    effect: float = 1.0,
    sites: int = 2,
    confounded: bool = False,
    seed: int = 0,
) -> int:
    """A cohort of MELODIC folders with a known pre/post effect; the ground truth is written beside the data.

    Args:
        out: folder to write.
        subjects: number of subjects.
        design: pre-post gives every subject two sessions.
        resolution: voxel size in mm.
        effect: size of the state effect; 0 gives a null cohort.
        sites: number of scanners.
        confounded: scanner gain, motion and duration follow the state.
        seed: another seed gives another cohort.
    """
    from ssl4neuro.simulate.ica import simulate_ica as simulate

    simulate(
        out, subjects=subjects, resolution=resolution, effect=effect, sites=sites, confounded=confounded,
        seed=seed,
    )  # fmt: skip
    return 0


@app.command(name="simulate")
def _help() -> int:
    """Write a cohort with known ground truth: simulate ica | cine."""
    return simulate_app.cli(args=["--help"], prog="ssl4neuro simulate")
