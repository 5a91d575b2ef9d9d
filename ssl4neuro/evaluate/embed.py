"""Embed a cohort with a trained model: whole scans at a time, shared by processes, continued when interrupted."""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.numpy import load_file, save_file

from ssl4neuro import contract
from ssl4neuro.adapt import adapt_batch
from ssl4neuro.atomic import new_file
from ssl4neuro.checkpoint import Checkpoint
from ssl4neuro.config import from_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import SCAN_KEY, write_embeddings
from ssl4neuro.data.loader import CohortRows, load_batches
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.layers import watched, with_scans
from ssl4neuro.manifest import file_sha256
from ssl4neuro.pretrained import Pretrained, load
from ssl4neuro.progress import progress

SESSION = "session:"


def embed(
    run: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    which: Literal["best", "last"] = "best",
    adapt: Collection[str] = (),
    batch_scans: int = 4,
    layers: bool = False,
) -> Path:
    """Write samples.parquet, sessions.parquet and embeddings.json for a cohort.

    Args:
        run: run folder or checkpoint.
        cohort: prepared cohort; checked against the checkpoint's contract.
        out: embeddings folder to create.
        which: best or last checkpoint.
        adapt: differences to bridge although that is not exact: see `contract.ADAPTATIONS`.
        batch_scans: scans per batch.
        layers: also write the pooled features of every stage of the encoders, as `<modality>_layer<k>`; see `evaluate.layers`.

    Raises:
        UserError: the cohort does not meet the contract, `out` exists, or a file is damaged.
    """
    out, state = Path(out), Accelerator()
    if out.exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    if batch_scans < 1:
        raise UserError(f"--batch-scans {batch_scans}: at least one scan per batch is needed")
    opened = Cohort.open(cohort)
    pretrained = load(run, which, state.device)
    saved = pretrained.checkpoint
    for note in saved.notes:
        state.print(note)
    masks = {} if opened.mask is None else {"map": opened.mask}
    found = opened.info["contract"]
    changes = contract.enforce(saved.contract, found, adapt=adapt, masks=masks, where=str(opened.path))
    for change in changes:
        state.print(f"note: {change}")
    chunks = _chunks(opened, batch_scans)
    wanted = [saved.checkpoint_sha256, _cohort_sha256(opened), sorted(adapt), batch_scans, *(["layers"] if layers else [])]
    key = hashlib.sha256(json.dumps(wanted).encode())
    work = out.parent / f".{out.name}.{key.hexdigest()[:12]}.work"
    work.mkdir(parents=True, exist_ok=True)
    mine = [i for i in range(state.process_index, len(chunks), state.num_processes) if not _part(work, i).is_file()]
    clip = clip_config(saved.contract)
    rows = CohortRows(opened, pretrained.model.modalities, clip=clip)
    views = make_views(opened, rows.modalities, clip=clip).to(state.device)
    encoders = {m: pretrained.model.encoders[m] for m in rows.modalities} if layers else {}
    with (
        torch.no_grad(),
        watched(encoders) as stages,
        progress("embedding", len(mine), "batch", show=state.is_main_process) as bar,
    ):
        for i, stored in zip(mine, load_batches(rows, lambda: map(chunks.__getitem__, mine)), strict=True):
            batch = adapt_batch(views(to_device(stored, state.device), None), saved.contract, found, changes)
            tensors = pretrained.model.embeddings(batch)
            tensors |= with_scans(stages, batch, SESSION)
            vectors = {name: value.float().cpu().numpy() for name, value in tensors.items()}
            _check_finite(vectors, opened, chunks[i])
            with new_file(_part(work, i)) as temporary:
                save_file(vectors, temporary)
            bar.advance()
    for modality in encoders:
        if mine and not any(name.startswith(f"{modality}_layer") for name in stages):
            state.print(f"note: the encoder of '{modality}' has no stages to read, so there are no layers of it")
    state.wait_for_everyone()
    if state.is_main_process:
        _merge(work, chunks, opened, pretrained, Path(run), out)
        shutil.rmtree(work, ignore_errors=True)
    state.wait_for_everyone()
    return out


def clip_config(expected: contract.Contract) -> ClipConfig | None:
    """How the checkpoint's clips were cut; None when it has seen none."""
    found = [entry["loading"] for entry in expected.values() if "loading" in entry]
    return from_mapping(ClipConfig, dict(found[0]), "checkpoint: loading") if found else None


def _chunks(cohort: Cohort, scans: int) -> list[np.ndarray]:
    """Rows of `scans` scans each, in the cohort's order."""
    codes = cohort.index["group_code"].to_numpy()
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    return np.split(np.arange(len(codes)), starts[scans::scans])


def _part(work: Path, number: int) -> Path:
    return work / f"part-{number:06d}.safetensors"


def _check_finite(vectors: dict[str, np.ndarray], cohort: Cohort, rows: np.ndarray) -> None:
    for name, values in vectors.items():
        if not np.isfinite(values).all():
            scan = cohort.index.iloc[rows[0]]
            raise UserError(
                f"{cohort.path}: the embedding '{name}' is not finite near row {rows[0]} ({scan['subject']} {scan['session']});"
                " check the scan with `ssl4neuro doctor`, or the run's log for diverging losses"
            )


def _merge(work: Path, chunks: list[np.ndarray], cohort: Cohort, pretrained: Pretrained, run: Path, out: Path) -> None:
    parts: dict[str, list[np.ndarray]] = {}
    for values in _read_parts(work, len(chunks)):
        for name, matrix in values.items():
            parts.setdefault(name, []).append(matrix)
    vectors = {name: np.concatenate(matrices) for name, matrices in parts.items()}
    saved = pretrained.checkpoint
    overlap = saved.manifest.overlap(cohort.name, cohort.content_hashes())
    index = cohort.index
    samples = index[[*SCAN_KEY, "site", *cohort.places]].reset_index(drop=True)
    samples.insert(0, "row", np.arange(len(samples)))
    samples["seen"] = samples["subject"].isin(overlap)
    scans = samples.groupby(index["group_code"].to_numpy(), sort=False)
    sessions = scans[[*SCAN_KEY, "site", "seen"]].first().reset_index(drop=True)
    sessions["rows"] = scans.size().to_numpy()
    write_embeddings(
        out,
        _record(cohort, saved, run),
        samples,
        sessions,
        {name: matrix for name, matrix in vectors.items() if not name.startswith(SESSION)},
        {name.removeprefix(SESSION): matrix for name, matrix in vectors.items() if name.startswith(SESSION)},
        {name: cohort.path / name for name in ("participants.tsv", "sessions.tsv") if (cohort.path / name).is_file()},
    )


def _read_parts(work: Path, count: int) -> Iterator[dict[str, np.ndarray]]:
    for number in range(count):
        yield load_file(_part(work, number))


def _record(cohort: Cohort, saved: Checkpoint, run: Path) -> dict[str, object]:
    return {
        "name": cohort.name,
        "cohort": str(cohort.path),
        "cohort_sha256": _cohort_sha256(cohort),
        "run": str(run),
        "step": saved.step,
        "checkpoint_sha256": saved.checkpoint_sha256,
        "contract": saved.contract,
        "manifest": saved.manifest.to_json(),
    }


def _cohort_sha256(cohort: Cohort) -> str:
    return file_sha256(cohort.path / "cohort.json")
