"""What the main job does when it is given nothing: a simulated study from raw files to a report, in minutes on two cores.

Every step is the one that real data takes, through the same public functions; each is skipped when its result is there
already, so an interrupted quick start continues where it was.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ssl4neuro.errors import UserError


@dataclass(frozen=True)
class QuickstartConfig:
    """Flags of the quick start."""

    out: str = "quickstart"
    tiny: bool = False  # a few subjects and epochs: shows that the installation works, its numbers mean nothing
    subjects: int | None = None  # 40, or 12 when tiny
    effect: float = 1.0  # 0 simulates a cohort without any effect
    seed: int = 4  # of data and training; 0 to 2 served to choose the simulation's difficulty


def quickstart(flags: Sequence[str] = ()) -> int:
    """Simulate, prepare, pretrain, embed, probe, retrieve, report; print a short table. Returns the exit status.

    Raises:
        UserError: an unknown flag, or a folder that holds something else.
    """
    from ssl4neuro.config import load

    config = load(QuickstartConfig, None, flags)
    started = time.monotonic()
    out = Path(config.out)
    _claim(out, config)
    if _main_process():
        make_data(out, config)
    _wait()
    status = train(out, config)
    if status:
        return status
    embed_all(out)
    if not _main_process():
        return 0
    lines = _evaluate(out, config)
    print("\n".join([*lines, f"done in {time.monotonic() - started:.0f} s"]))
    return 0


def _claim(out: Path, config: QuickstartConfig) -> None:
    """Refuse a folder that is not ours, or that was made with other flags."""
    from ssl4neuro.atomic import write_text
    from ssl4neuro.config import to_mapping

    record, wanted = out / "quickstart.json", to_mapping(replace(config, out=""))
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) != wanted:
            raise UserError(f"{out}: holds a quick start with other flags; delete it or name another folder with --out")
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds something else; name another folder with --out")
    elif _main_process():
        write_text(record, json.dumps(wanted))


def train(out: Path, config: QuickstartConfig) -> int:
    """Pretrain on the cohort, or continue; the exit status."""
    from ssl4neuro.config import load
    from ssl4neuro.shipped import find_recipe
    from ssl4neuro.train.pretrain import Interrupted, PretrainConfig, pretrain

    run = out / "run"
    if (run / "summary.json").is_file():
        return 0
    flags = ["--data", str(out / "cohort"), "--out", str(run), "--seed", str(config.seed)]
    if config.tiny:
        flags += ["--loop.epochs", "2"]
    if (run / "config.yaml").is_file():
        flags += ["--resume"]
    _say("pretraining" + (", continued" if "--resume" in flags else ""))
    try:
        pretrain(load(PretrainConfig, find_recipe("quickstart"), flags))
    except Interrupted as stop:
        print(f"{stop}; the same command continues it", file=sys.stderr)
        return 130
    return 0


def make_data(out: Path, config: QuickstartConfig) -> None:
    """Raw files and the cohort prepared from them."""
    from ssl4neuro.data.prepare import prepare_ica
    from ssl4neuro.simulate.ica import simulate_ica

    data = out / "data"
    if not data.exists():
        _say("simulating raw files as FSL MELODIC leaves them, with a known pre/post effect")
        simulate_ica(data, subjects=config.subjects or (12 if config.tiny else 40), effect=config.effect, seed=config.seed)
    _say("preparing the cohort, as from real data")
    prepare_ica(
        out / "cohort",
        melodic=tuple(sorted(data.glob("sub-*/ses-*"))),
        templates=data / "templates.nii.gz",
        networks=data / "networks.tsv",
        participants=data / "participants.tsv",
        sessions=data / "sessions.tsv",
        name="quickstart",
    )


def embed_all(out: Path) -> None:
    """Embed every session with the last checkpoint: a fixed schedule, nothing was selected."""
    from ssl4neuro.evaluate.embed import embed

    if not (out / "embeddings").exists():
        _say("embedding all sessions")
        embed(out / "run", out / "cohort", out / "embeddings", which="last")


def _evaluate(out: Path, config: QuickstartConfig) -> list[str]:
    from ssl4neuro.evaluate.probe import probe
    from ssl4neuro.evaluate.results import render
    from ssl4neuro.evaluate.retrieval_metrics import retrieval_from_embeddings
    from ssl4neuro.report import write_report

    _say("probing the state on held-out subjects")
    permutations = 100 if config.tiny else 1000
    fresh = None if (out / "results").exists() else out / "results"
    result = probe(out / "embeddings", target="state", unit="session", out=fresh, permutations=permutations, seed=config.seed)
    found = retrieval_from_embeddings(out / "embeddings", "course", "map", seed=config.seed)
    pages = [write_report(out / "run"), write_report(out / "results")]
    return [
        "",
        render(result, metrics=("AUC",)),
        "",
        f"For comparison, {_oracle(out / 'data')}.",
        "",
        "Cross-modal retrieval on held-out subjects (which map belongs to this course, and the reverse):",
        *(f"  {metric}" for metric in found if metric.metric == "top-5"),
        "",
        "Files:",
        *(f"  {path}" for path in (out / "cohort", out / "run", out / "embeddings", out / "results", *pages)),
        "",
        "Next:",
        f"  ssl4neuro index {out / 'embeddings'} {out / 'index'}",
        f"  ssl4neuro query {out / 'index'} --row 0 --from course --to map -k 5",
        f"  ssl4neuro probe {out / 'embeddings'} --target network --unit sample --out {out / 'results-network'}",
        "  ssl4neuro prepare ica --help        # your own BIDS derivatives, MELODIC or GIFT folders",
        "",
    ]


def _oracle(data: Path) -> str:
    """What an oracle that knows the simulated effect reaches over the whole cohort."""
    truth = json.loads((data / "ground_truth" / "truth.json").read_text(encoding="utf-8"))
    found = truth["difficulty"]["oracle"]["session"]
    interval = f"{found['low']:.3f} to {found['high']:.3f}"
    return f"an oracle that knows the effect reaches AUC {found['auc']:.3f} ({interval}) over all subjects"


def _say(text: str) -> None:
    if _main_process():
        print(f"- {text}", file=sys.stderr, flush=True)


def _main_process() -> bool:
    """Known from the environment, before Accelerate is imported."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _wait() -> None:
    from accelerate import Accelerator

    Accelerator().wait_for_everyone()
