"""acdc-cine25: the disease group of patients that neither encoder nor probe has seen, beside three simple baselines.

    python tests/benchmarks/bench_acdc.py ../shared/data/acdc-cine25 --work DIR [--phantom RUN] [--flags="--loop.epochs 60"]

The frozen embedding comes (a) from encoders pretrained inside each fold, on the other patients only, (b) from encoders
pretrained on the cine phantom (`--phantom`), (c) from random weights. All are probed in the same five folds, with the same
linear probe; a patient's embedding is the mean over slices. Chance is 0.20.
"""

import argparse
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.evaluate.baselines import cohort_baselines, simple_baselines
from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate, make_folds
from ssl4neuro.evaluate.embed import embed
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import Problem, pose

FROZEN = ["--loop.epochs", "1", "--optimiser.rate", "1e-12"]  # as good as untrained


class FoldEmbeddings:
    """The embedding of each fold's own encoder."""

    def __init__(self, matrices: dict[tuple[int, ...], np.ndarray]) -> None:
        self.matrices = matrices

    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        matrix = self.matrices[tuple(sorted(test.tolist()))]
        return matrix[train], matrix[test]


def command(*words: object) -> None:
    """One ssl4neuro command, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "ssl4neuro", *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def encode(recipe: str, cohort: Cohort, work: Path, name: str, flags: list[str]) -> Embeddings:
    """Embeddings of the cohort by an encoder trained on it."""
    run, out = work / name, work / f"{name}-embeddings"
    if not (run / "summary.json").is_file():
        command("pretrain", recipe, "--data", cohort.path, "--out", run, *flags)
    if not out.exists():
        embed(run, cohort.path, out, which="last")
    return Embeddings.open(out)


def features(embeddings: Embeddings, problem: Problem) -> dict[str, np.ndarray]:
    """Every embedding of a patient, and picture and motion together."""
    found = {
        name: embeddings.matrix("subject", name)[problem.kept] for name in embeddings.columns_of("subject") if "_" not in name
    }
    if {"cine", "motion"} <= set(found):
        found["cine + motion"] = np.concatenate([found["cine"], found["motion"]], axis=1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="cine_contrastive")
    parser.add_argument("--phantom", type=Path, help="run of the same recipe on a phantom cohort")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--flags", default="", help="of pretraining")
    options = parser.parse_args()
    work = options.work / options.recipe
    work.mkdir(parents=True, exist_ok=True)
    cohort = prepare_clips(options.work / "acdc", source=options.source, layout="acdc")
    random = encode(options.recipe, cohort, work, "random", FROZEN)
    table = random.table("subject").assign(seen=False)  # every fold's encoder has seen its training patients only
    problem = pose(table, table["group"], "group", "subject")
    settings = Settings(permutations=1000, bootstrap=2000)
    folds = make_folds(problem, settings)[0]

    def train(number: int) -> Embeddings:
        held = ",".join(sorted(set(problem.table["subject"].iloc[folds[number].test])))
        flags = ["--split.hold_subjects", f"[{held}]", *shlex.split(options.flags)]
        return encode(options.recipe, cohort, work, f"fold-{number}", flags)

    with ThreadPoolExecutor(options.jobs) as pool:
        trained = list(pool.map(train, range(len(folds))))
    per_fold = [features(embeddings, problem) for embeddings in trained]
    keys = [tuple(sorted(fold.test.tolist())) for fold in folds]
    candidates = [
        Candidate(
            f"in the fold: {name}", FoldEmbeddings({k: f[name] for k, f in zip(keys, per_fold, strict=True)}), LinearProbe()
        )
        for name in per_fold[0]
    ]
    others = {"random": random}
    if options.phantom is not None:
        out = work / "phantom-embeddings"
        if not out.exists():
            embed(options.phantom, cohort.path, out, which="last")
        others["phantom"] = Embeddings.open(out)
    for where, embeddings in others.items():
        candidates += [
            Candidate(f"{where}: {n}", ArrayFeatures(m), LinearProbe()) for n, m in features(embeddings, problem).items()
        ]
    more, notes = cohort_baselines(problem, cohort)
    for outcome in evaluate(problem, [*candidates, *more, *simple_baselines(problem)], settings)[0]:
        told = [f"{row.metric} {row.value:.3f} ({row.ci_low:.3f}-{row.ci_high:.3f})" for row in outcome.rows[:2]]
        print(f"{outcome.rows[0].name:34} {'  '.join(told)}  p = {outcome.rows[0].p}", flush=True)
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()
