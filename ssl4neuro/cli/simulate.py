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
    cavity: bool = False,
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
        cavity: the operation leaves a cavity in the maps; lesion masks for `prepare ica --lesions` are written.
        seed: another seed gives another cohort.
    """
    from ssl4neuro.simulate.ica import simulate_ica as simulate

    simulate(
        out, subjects=subjects, resolution=resolution, effect=effect, sites=sites, confounded=confounded,
        cavity=cavity, seed=seed,
    )  # fmt: skip
    return 0


@simulate_app.command(name="cine")
def simulate_cine(
    out: Positional[Path],
    /,
    *,
    subjects: int = 40,
    sessions: int = 1,
    study: Literal["groups", "hypokinesia"] = "groups",
    hypokinesia: float = 0.5,
    mask: Literal["anatomy", "hypokinesia"] = "anatomy",
    effect: float = 1.0,
    noise: float = 1.0,
    frames: tuple[int, int] = (20, 30),
    slices: tuple[int, int] = (7, 9),
    size: int = 96,
    sites: int = 2,
    seed: int = 0,
) -> int:
    """Short-axis cine of beating hearts with known volumes, groups and regions that hardly contract.

    Args:
        out: folder to write; `prepare clips --layout bids` reads it.
        subjects: number of subjects.
        sessions: scans of each subject.
        study: groups are the five of ACDC; in hypokinesia all hearts are normal but for a region that hardly contracts.
        hypokinesia: share of the subjects with such a region, in that study.
        mask: beside the images, the anatomy at ED and ES, or the region.
        effect: size of the differences between groups and of hypokinesia; 0 gives a null cohort.
        noise: factor on the noise of every scanner.
        frames: fewest and most frames of a beat.
        slices: fewest and most slices.
        size: rows and columns, pixels.
        sites: number of scanners.
        seed: another seed gives other hearts.
    """
    from ssl4neuro.simulate.cine import simulate_cine as simulate
    from ssl4neuro.simulate.cine_settings import CineSettings

    settings = CineSettings(
        subjects=subjects, sessions=sessions, study=study, hypokinesia=hypokinesia, mask=mask, effect=effect, noise=noise,
        frames=frames, slices=slices, size=size, sites=sites, seed=seed,
    )  # fmt: skip
    simulate(out, settings)
    return 0


@app.command(name="simulate")
def _help() -> int:
    """Write a cohort with known ground truth: simulate ica | cine."""
    return simulate_app.cli(args=["--help"], prog="ssl4neuro simulate")
