"""The command line: every command is a function here, imports what it needs when it runs, and fails in one line.

Exit status: 0 done, 1 `doctor` found something fatal, 2 the user can put something right, 130 interrupted (everything saved).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from ssl4neuro.errors import UserError

if TYPE_CHECKING:
    from ssl4neuro.data.cohort import Cohort

app, prepare_app, simulate_app, recipes_app = SubcommandApp(), SubcommandApp(), SubcommandApp(), SubcommandApp()
GROUPS = {"prepare": prepare_app, "simulate": simulate_app, "recipes": recipes_app}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        sys.stderr.close()
        return 0


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "pretrain":
        return _pretrain(words[1:])
    if words and words[0] in GROUPS:
        return GROUPS[words[0]].cli(args=words[1:], prog=f"ssl4neuro {words[0]}")
    if words and words[0] == "--version":
        from ssl4neuro import __version__

        print(__version__)
        return 0
    return app.cli(args=words or ["--help"], prog="ssl4neuro", description=DESCRIPTION, config=(tyro.conf.OmitArgPrefixes,))


DESCRIPTION = """Self-supervised representations of resting-state fMRI: prepare, pretrain, embed, probe, retrieve."""


@app.command
def doctor(path: Positional[Path], /, *, maps: Path | None = None, mask: Path | None = None) -> int:
    """Check a raw folder or a prepared cohort; exit status 1 when something would spoil a run.

    Args:
        path: BIDS derivatives, MELODIC or GIFT output, time series, or a prepared cohort.
        maps: spatial maps that the scans are to be regressed on; found by themselves when they lie in the folder.
        mask: brain mask.
    """
    from ssl4neuro.data.doctor import examine, render

    findings = examine(path, maps=maps, mask=mask)
    print(render(findings))
    return int(any(finding.level == "fatal" for finding in findings))


def _summary(cohort: "Cohort") -> str:
    info = cohort.info
    skipped = f"; {len(info['skipped'])} inputs skipped, listed in cohort.json" if info["skipped"] else ""
    return f"{cohort.path}: {info['rows']} rows of {info['scans']} scans of {info['subjects']} subjects{skipped}"


@prepare_app.command(name="ica")
def prepare_ica(
    out: Positional[Path],
    /,
    *,
    bids: Path | None = None,
    maps: Path | None = None,
    canica: int | None = None,
    canica_subjects: Path | None = None,
    melodic: tuple[Path, ...] = (),
    templates: Path | None = None,
    assignment: Path | None = None,
    gift: Path | None = None,
    mask: Path | None = None,
    networks: Path | None = None,
    participants: Path | None = None,
    sessions: Path | None = None,
    resolution: float | None = None,
    task: str | None = None,
    space: str | None = None,
    run: str | None = None,
    confounds: str | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> int:
    """Spatial maps and time courses of independent components, from BIDS derivatives, MELODIC or GIFT.

    Args:
        out: cohort folder to write.
        bids: BIDS derivatives (fMRIPrep's naming); needs --maps or --canica.
        maps: 4-D spatial maps for dual regression.
        canica: number of group components to compute from the scans with nilearn's CanICA.
        canica_subjects: table of the subjects that CanICA is fitted on; leave test subjects out.
        melodic: FSL MELODIC folders, one per session.
        templates: 4-D template maps that MELODIC components are assigned to networks by.
        assignment: assignment.tsv of an earlier run, as corrected by you.
        gift: GIFT output folder.
        mask: brain mask; the maps' own when not given.
        networks: table with the columns component and network.
        participants: participants table, when it is not in the source folder.
        sessions: sessions table: labels, TR, or which MELODIC folder is which session.
        resolution: voxel size in mm to resample to.
        task: BIDS task, where there are several.
        space: BIDS space (with res, e.g. MNI152NLin2009cAsym or MNI152_res-10), where there are several.
        run: BIDS run; all runs when not given.
        confounds: nilearn's strategy: simple, scrubbing, compcor or ica_aroma.
        band: band-pass in Hz, low and high.
        drop_volumes: volumes to leave out at the start of every scan.
        workers: scans read in parallel.
        skip_bad: go on without bad scans and list them in cohort.json.
        name: dataset name; the firewall compares subjects by it.
        replace: overwrite an existing cohort made with other settings.
    """
    from ssl4neuro.data.prepare import prepare_ica as prepare

    cohort = prepare(
        out, bids=bids, maps=maps, canica=canica, canica_subjects=canica_subjects, melodic=melodic, templates=templates,
        assignment=assignment, gift=gift, mask=mask, networks=networks, participants=participants, sessions=sessions,
        resolution=resolution, task=task, space=space, run=run, confounds=confounds, band=band, drop_volumes=drop_volumes,
        workers=workers, skip_bad=skip_bad, name=name, replace=replace,
    )  # fmt: skip
    print(_summary(cohort))
    return 0


@prepare_app.command(name="courses")
def prepare_courses(
    out: Positional[Path],
    /,
    *,
    timeseries: Path,
    participants: Path | None = None,
    sessions: Path | None = None,
    networks: Path | None = None,
    tr: float | None = None,
    time_axis: Literal[0, 1] | None = None,
    band: tuple[float, float] | None = None,
    drop_volumes: int = 0,
    workers: int = 1,
    skip_bad: bool = False,
    name: str | None = None,
    replace: bool = False,
) -> int:
    """Atlas or component time courses only, without maps.

    Args:
        out: cohort folder to write.
        timeseries: npz, csv, tsv or 1D file, or a folder of them.
        participants: participants table.
        sessions: sessions table with label columns.
        networks: table with the columns component and network.
        tr: repetition time in s.
        time_axis: axis of the arrays that is time, where it cannot be told.
        band: band-pass in Hz, low and high.
        drop_volumes: volumes to leave out at the start of every scan.
        workers: scans read in parallel.
        skip_bad: go on without bad scans and list them in cohort.json.
        name: dataset name; the firewall compares subjects by it.
        replace: overwrite an existing cohort made with other settings.
    """
    from ssl4neuro.data.prepare import prepare_courses as prepare

    cohort = prepare(
        out, timeseries=timeseries, participants=participants, sessions=sessions, networks=networks, tr=tr,
        time_axis=time_axis, band=band,
        drop_volumes=drop_volumes, workers=workers, skip_bad=skip_bad, name=name, replace=replace,
    )  # fmt: skip
    print(_summary(cohort))
    return 0


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


@recipes_app.command(name="list")
def recipes_list() -> int:
    """The shipped recipes."""
    from ssl4neuro.shipped import recipes, summary

    for path in recipes():
        print(f"{path.stem:20} {summary(path)}")
    return 0


@recipes_app.command(name="copy")
def recipes_copy(name: Positional[str], /, *, to: Path = Path()) -> int:
    """Copy a shipped recipe to change it.

    Args:
        name: as `ssl4neuro recipes list` shows it.
        to: folder or file to copy to.
    """
    from ssl4neuro.shipped import copy

    print(copy(name, to))
    return 0


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
    probe: Literal["linear", "knn"] = "linear",
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
        probe: linear or k nearest neighbours.
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
def index(
    embeddings: Positional[Path],
    out: Positional[Path],
    /,
    *,
    unit: Literal["sample", "session"] = "sample",
    kind: Literal["auto", "flat", "ivf", "hnsw", "pq"] = "auto",
) -> int:
    """Build a faiss index of embeddings; reports its recall against exact search.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote.
        out: index folder to write.
        unit: index samples or whole scans.
        kind: auto chooses by size.
    """
    from ssl4neuro.retrieve.index import build_index

    print(build_index(embeddings, out, unit=unit, kind=kind))
    return 0


@app.command
def query(
    index: Positional[Path],
    /,
    *,
    row: int | None = None,
    like: Path | None = None,
    source: Annotated[str | None, arg(name="from")] = None,
    target: Annotated[str | None, arg(name="to")] = None,
    k: Annotated[int, arg(aliases=["-k"])] = 10,
    where: tuple[str, ...] = (),
    include_self: bool | None = None,
    exclude_subject: bool = False,
) -> int:
    """The most similar samples or scans.

    Args:
        index: folder that `ssl4neuro index` wrote.
        row: row of the index to search with.
        like: embeddings to search with, made by the same encoder.
        source: modality of the query.
        target: modality to search in; another one than --from searches across modalities.
        k: number of neighbours.
        where: filters such as site==A or "network in DMN,SC".
        include_self: let the row find itself; by default only across modalities.
        exclude_subject: leave out the subject of the query.
    """
    from ssl4neuro.retrieve.query import query as run_query

    found = run_query(
        index, row=row, like=like, source=source, target=target, k=k, where=where, include_self=include_self,
        exclude_subject=exclude_subject,
    )  # fmt: skip
    print(found.to_string(index=False))
    return 0


@app.command
def retrieve(
    embeddings: Positional[Path],
    /,
    *,
    source: Annotated[str, arg(name="from")] = "course",
    target: Annotated[str, arg(name="to")] = "map",
    within_scan: bool = False,
    allow_overlap: bool = False,
    seed: int = 0,
) -> int:
    """Is a sample's own partner found in the other modality? Both directions, on unseen subjects, beside chance.

    Args:
        embeddings: folder that `ssl4neuro embed` wrote.
        source: modality of the queries.
        target: modality of the candidates.
        within_scan: candidates are the components of the same scan only: which component, not whose.
        allow_overlap: also use subjects that the encoder has seen.
        seed: of the bootstrap.
    """
    from ssl4neuro.evaluate.retrieval_metrics import retrieval_from_embeddings

    found = retrieval_from_embeddings(
        embeddings, source, target, within_scan=within_scan, allow_overlap=allow_overlap, seed=seed
    )  # fmt: skip
    print("\n".join(str(metric) for metric in found))
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


@app.command
def report(path: Positional[Path], /, *, out: Path | None = None) -> int:
    """One offline HTML page about a run or a results folder.

    Args:
        path: run or results folder.
        out: HTML file to write; report.html in the folder by default.
    """
    from ssl4neuro.report import write_report

    print(write_report(path, out))
    return 0


# Listed for `ssl4neuro --help`; they have their own parsers.
@app.command(name="pretrain")
def _pretrain_help() -> int:
    """Pretrain encoders from a recipe: pretrain [RECIPE] --data COHORT --out RUN [--any.field value]."""
    return _pretrain(["--help"])


@app.command(name="prepare")
def _prepare_help() -> int:
    """Turn what is on disk into a cohort: prepare ica | courses."""
    return prepare_app.cli(args=["--help"], prog="ssl4neuro prepare")


@app.command(name="simulate")
def _simulate_help() -> int:
    """Write a cohort with known ground truth: simulate ica."""
    return simulate_app.cli(args=["--help"], prog="ssl4neuro simulate")


@app.command(name="recipes")
def _recipes_help() -> int:
    """Shipped recipes: recipes list | copy NAME."""
    return recipes_app.cli(args=["--help"], prog="ssl4neuro recipes")


def _pretrain(words: list[str]) -> int:
    """`[RECIPE] [--flag value ...]`; recipe keys are the flags, so that a new option needs no change here."""
    from ssl4neuro.shipped import find_recipe

    if words and words[0] in {"-h", "--help"}:
        print(_pretrain_usage())
        return 0
    name = words.pop(0) if words and not words[0].startswith("--") else None
    if name is None and not any(word.startswith("--data") for word in words):
        from ssl4neuro.quickstart import quickstart

        return quickstart(words)
    recipe = find_recipe(name or "rest_ica")
    from ssl4neuro.config import load
    from ssl4neuro.train.pretrain import Interrupted, PretrainConfig, pretrain

    config = load(PretrainConfig, recipe, words)
    try:
        print(pretrain(config))
    except Interrupted as stop:
        print(
            f"{stop}; continue with: ssl4neuro pretrain {name or ''} --data {config.data} --out {config.out} --resume",
            file=sys.stderr,
        )
        return 130
    return 0


def _pretrain_usage() -> str:
    """Usage of `pretrain`, with every key of a recipe and its default."""
    from ssl4neuro.config import describe
    from ssl4neuro.shipped import recipes
    from ssl4neuro.train.pretrain import PretrainConfig

    return "\n".join([
        "usage: ssl4neuro pretrain [RECIPE] --data COHORT --out RUN [--resume] [--estimate] [--any.field value ...]",
        "",
        f"RECIPE: a YAML file, or one of {', '.join(recipe.stem for recipe in recipes())} (default rest_ica).",
        "Without RECIPE and --data the quick start runs.",
        "",
        "Fields, with their defaults:",
        *describe(PretrainConfig),
    ])  # fmt: skip
