"""Checkpoints that survive a kill: written aside, flushed, renamed; verified when loaded; never code.

A run's folder:

    RUN/checkpoints/step-00000123/
        model.safetensors       weights (for embedding, probing, fine-tuning)
        training.safetensors    optimiser, schedule, random number generators: tensors ...
        training.json           ... and everything else, see `training_state`
        contract.json           what the input must be
        manifest.json           whom the weights have seen
        config.json             everything needed to build the model again
        state.json              step, epoch, metric, order of writing
        SHA256.json             size and hash of every file above
    RUN/checkpoints/best.json   which step was best; that one is never pruned
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl4neuro import contract as contracts
from ssl4neuro.atomic import new_folder, remove, remove_leftovers, write_text
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Manifest, file_sha256
from ssl4neuro.training_state import Damaged, flatten, unflatten
from ssl4neuro.verified import Bad, read_json, read_object, read_tensors, verify

if TYPE_CHECKING:
    from accelerate import Accelerator

FORMAT, VERSION = "ssl4neuro checkpoint", 1
WEIGHTS = ("model.safetensors", "contract.json", "manifest.json", "config.json", "state.json")
TRAINING = ("training.safetensors", "training.json")
HASHES, BEST = "SHA256.json", "best.json"
STEP = re.compile(r"step-(\d{8,18})")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory (CPU)."""

    path: Path
    step: int
    epoch: int
    model: dict[str, Tensor]
    training: Any  # as given to `save`; None when not asked for or not there
    contract: dict[str, dict[str, Any]]
    manifest: Manifest
    config: dict[str, Any]
    metric: float | None
    checkpoint_sha256: str  # of model.safetensors: equal weights are the same encoder
    notes: list[str] = field(default_factory=list)  # what was damaged, and what is used instead


def save(
    run: Path,
    *,
    step: int,
    epoch: int,
    model: Mapping[str, Tensor],
    training: Any = None,
    contract: Mapping[str, Any],
    manifest: Manifest,
    config: Mapping[str, Any],
    metric: float | None = None,
    best: bool = False,
    keep: int = 2,
) -> Path:
    """Write a checkpoint of `run`, then delete old ones but the last `keep` and the best. One process at a time.

    A kill at any moment leaves the earlier checkpoints whole. Saving the same step again replaces it in one step.

    Args:
        model: state dictionary; tensors may share memory and lie on any device.
        training: nested state, see `training_state.flatten`; None for weights only.
        contract: modality -> properties, see `ssl4neuro.contract`.
        metric: the validation signal, kept for information.
        best: this is the best so far.
        keep: how many of the latest stay, this one included.

    Raises:
        UserError: no space, or no permission to write; nothing was changed.
    """
    if keep < 1 or step < 0:
        raise ValueError(f"keep={keep} and step={step} must be at least 1 and 0")
    contracts.check(contract, "contract")  # before anything is written: `load` refuses a checkpoint without one
    folder = Path(run) / "checkpoints"
    target = folder / f"step-{step:08d}"
    if folder.is_dir():
        remove_leftovers(folder)
    earlier = _steps(folder)
    order = 1 + max([number for number, _ in earlier if number is not None], default=0)
    state = {"format": FORMAT, "version": VERSION, "step": step, "epoch": epoch, "metric": metric, "order": order}
    with new_folder(target, replace=True) as temporary:
        save_file(_unshared(model), temporary / "model.safetensors")
        if training is not None:
            tensors, tree = flatten(training)
            save_file(tensors, temporary / "training.safetensors")
            _write_json(temporary / "training.json", tree)
        _write_json(temporary / "contract.json", contract)
        _write_json(temporary / "manifest.json", manifest.to_json())
        _write_json(temporary / "config.json", config)
        _write_json(temporary / "state.json", state)
        files = {f.name: {"sha256": file_sha256(f), "bytes": f.stat().st_size} for f in sorted(temporary.iterdir())}
        _write_json(temporary / HASHES, {"format": FORMAT, "version": VERSION, "files": files})
    if best:
        write_text(folder / BEST, json.dumps({"step": step, "metric": metric}) + "\n")
    _prune(folder, target, keep)
    return target


def load(run: Path, which: Literal["last", "best"] | int = "last", training: bool = False) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        run: a run (its `checkpoints` are looked at) or one checkpoint's folder.
        which: `last` written, `best`, or a step. `last` and `best` fall back to the last good one and say so in `notes`.
        training: read the training state too.

    Raises:
        UserError: there is none, or none is good; names the file and what is wrong with it.
    """
    run = Path(run)
    if (run / HASHES).is_file() or STEP.fullmatch(run.resolve().name):
        return _read_one(run, training)
    folder = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    steps = _steps(folder)
    if not steps:
        what = "no checkpoint here" if run.is_dir() else "no such run"
        raise UserError(f"{run}: {what}; give the folder of a run that has saved one")
    if isinstance(which, int):
        wanted = folder / f"step-{which:08d}"
        if wanted not in [path for _, path in steps]:
            have = ", ".join(str(_number(path)) for _, path in reversed(steps))
            raise UserError(f"{run}: no checkpoint of step {which}; there are {have}")
        return _read_one(wanted, training)
    candidates, notes = [path for _, path in steps], []
    damage: list[str] = []
    if which == "best":
        best, note = _best(folder)
        notes += [note] if note else []
        candidates = [path for path in [best] if path is not None] + [path for path in candidates if path != best]
    for path in candidates:
        try:
            return _read(path, training, [*notes, *(f"{what}; using {path.name} instead" for what in damage)])
        except Bad as error:
            damage.append(str(error))
    raise UserError(f"{run}: no checkpoint can be used, the latest because of {damage[0]}; train again")


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load weights strictly.

    Raises:
        UserError: names or shapes that do not fit `module`, the first of each on one line.
    """
    own = module.state_dict()
    shapes = [
        f"{key} is {_shape(state[key])}, the model has {_shape(own[key])}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{label} {_first(found)}"
        for label, found in (
            ("other shapes:", shapes),
            ("missing:", [key for key in own if key not in state]),
            ("not in the model:", [key for key in state if key not in own]),
        )
        if found
    ]
    if problems:
        raise UserError(f"{where}: weights of another model ({'; '.join(problems)}); use the recipe of their training")
    module.load_state_dict(dict(state))


def state_of(accelerator: "Accelerator", model: nn.Module) -> dict[str, Tensor]:
    """Full state dictionary under DDP, FSDP or none, as the bare model names it. All processes must call it.

    Under FSDP only the main process gets the tensors.
    """
    state = accelerator.get_state_dict(model)
    return {key.replace("_orig_mod.", ""): value for key, value in state.items()}  # a compiled module adds the prefix


def save_on_main(accelerator: "Accelerator", run: Path, **arguments: Any) -> Path | None:
    """`save` on the main process while the others wait; an error there ends all of them instead of leaving them waiting.

    Returns:
        The checkpoint on the main process, None on the others.
    """
    path, failure = None, None
    if accelerator.is_main_process:
        try:
            path = save(run, **arguments)
        except UserError as error:
            failure = error
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        message = broadcast_object_list([None if failure is None else str(failure)])[0]
        if failure is None and message is not None:
            failure = UserError(message)
    if failure is not None:
        raise failure
    return path


def _read_one(path: Path, training: bool) -> Checkpoint:
    try:
        return _read(path, training, [])
    except Bad as error:
        others = f"`{path.parent}` may hold another one" if STEP.fullmatch(path.name) else "use another checkpoint"
        raise UserError(f"{error}; {others}") from error


def _read(path: Path, training: bool, notes: list[str]) -> Checkpoint:
    if not path.is_dir():
        raise Bad(f"{path}: not there")
    record = read_object(path / HASHES)
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise Bad(f"{path / HASHES}: not {FORMAT} version {VERSION}")
    files = verify(path, record.get("files", {}), WEIGHTS, (*WEIGHTS, *TRAINING))
    state = read_object(path / "state.json")
    step, epoch, metric = state.get("step"), state.get("epoch"), state.get("metric")
    if not isinstance(step, int) or not isinstance(epoch, int) or not isinstance(metric, int | float | None):
        raise Bad(f"{path / 'state.json'}: step, epoch or metric is missing")
    try:
        contract = contracts.check(read_object(path / "contract.json"), str(path / "contract.json"))
        manifest = Manifest.from_json(read_object(path / "manifest.json"), str(path / "manifest.json"))
    except UserError as error:
        raise Bad(str(error).rpartition(";")[0] or str(error)) from error
    resumed = None
    if training and set(TRAINING) <= set(files):
        try:
            resumed = unflatten(read_tensors(path / TRAINING[0]), read_json(path / TRAINING[1]))
        except (Damaged, RecursionError) as error:
            raise Bad(f"{path / TRAINING[1]}: not what ssl4neuro writes ({error})") from error
    return Checkpoint(
        path=path,
        step=step,
        epoch=epoch,
        model=read_tensors(path / "model.safetensors"),
        training=resumed,
        contract=contract,
        manifest=manifest,
        config=read_object(path / "config.json"),
        metric=metric,
        checkpoint_sha256=files["model.safetensors"],
        notes=list(notes),
    )


def _steps(folder: Path) -> list[tuple[int | None, Path]]:
    """Checkpoints of a run and the order in which they were written, the latest first.

    Not the step: a run resumed from an earlier checkpoint writes smaller steps later. One whose order cannot be read comes
    first, so that `load` finds it damaged and says so instead of passing it over.
    """
    if not folder.is_dir():
        return []
    found: list[tuple[int | None, Path]] = []
    for path in folder.iterdir():
        if STEP.fullmatch(path.name):
            try:
                order = read_object(path / "state.json").get("order")
            except Bad:
                order = None
            found.append((order if type(order) is int and order > 0 else None, path))
    return sorted(found, key=lambda item: (item[0] is None, item[0] or 0, item[1].name), reverse=True)


def _best(folder: Path) -> tuple[Path | None, str]:
    """The best checkpoint, or a note that says why there is none."""
    if not (folder / BEST).exists():
        return None, "no validation has chosen a best checkpoint yet; using the last one"
    try:
        step = read_object(folder / BEST).get("step")
    except Bad as error:
        return None, f"{error}; using the last checkpoint"
    if type(step) is not int:
        return None, f"{folder / BEST}: names no step; using the last checkpoint"
    return folder / f"step-{step:08d}", ""


def _prune(folder: Path, newest: Path, keep: int) -> None:
    best, _ = _best(folder)
    readable = [path for order, path in _steps(folder) if order is not None and path != newest]
    kept = {newest, best, *readable[: keep - 1]}
    for _, path in _steps(folder):
        if path not in kept:
            remove(path)


def _unshared(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with memory of their own, because safetensors refuses to write two that share it (tied weights)."""
    unshared, used = {}, set()
    for key, value in model.items():
        tensor = value.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in used or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        used.add(storage.data_ptr())
        unshared[key] = tensor
    return unshared


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a checkpoint's record cannot be written as JSON")


def _number(path: Path) -> int:
    found = STEP.fullmatch(path.name)
    return int(found[1]) if found else -1


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a scalar"


def _first(found: list[str], count: int = 3) -> str:
    return ", ".join(found[:count]) + (f" and {len(found) - count} more" if len(found) > count else "")
