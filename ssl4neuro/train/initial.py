"""Encoders that a head starts from: those of a pretraining run, checked against its contract, with whom they have seen."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssl4neuro import checkpoint, contract
from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embed import clip_config
from ssl4neuro.manifest import Manifest
from ssl4neuro.model import ModelConfig
from ssl4neuro.registry import Component
from ssl4neuro.train.run import changes

FITTED = ("normalise", "channels")  # what encoders cannot see otherwise than they were trained to


@dataclass(frozen=True)
class Initial:
    """What fine-tuning begins with."""

    encoders: dict[str, Component]
    weights: dict[str, dict[str, Tensor]]  # by modality; none from scratch
    manifest: Manifest
    source: str = ""  # sha256 of the checkpoint's weights
    notes: tuple[str, ...] = ()


def fold_runs(init: str) -> list[Path]:
    """The runs of a crossfit pretraining, one per fold; none for a single run."""
    return sorted((p for p in Path(init).glob("fold-*") if p.is_dir()), key=lambda p: (len(p.name), p.name)) if init else []


def load_initial(
    init: str | Path, cohort: Cohort, clip: ClipConfig, encoders: Mapping[str, Component], adapt: Collection[str] = ()
) -> Initial:
    """The encoders that the recipe names, with the checkpoint's architecture and weights; without `init` the recipe's own.

    Raises:
        UserError: the checkpoint has none of them, or neither the cohort nor the way clips are cut is what it was trained on.
    """
    if not init:
        return Initial(dict(encoders), {}, Manifest())
    saved = checkpoint.load(Path(init), "best")
    if not encoders:  # a head without them is tested on the same people as those with
        return Initial({}, {}, saved.manifest)
    if "model" not in saved.config:
        raise UserError(f"{init}: not a pretraining run; name what `ssl4neuro pretrain` wrote")
    trained = from_mapping(ModelConfig, saved.config["model"], str(saved.path / "config.json")).modalities
    shared = [name for name in encoders if name in trained]
    if not shared:
        raise UserError(
            f"{init}: has encoders of {', '.join(trained)}, but the head needs {' and '.join(encoders)}; pretrain these, "
            "e.g. with the recipe cine_contrastive"
        )
    expected = {name: saved.contract[name] for name in shared if name in saved.contract}
    found = contract.enforce(expected, cohort.info["contract"], adapt=adapt, where=str(cohort.path))
    notes = [*saved.notes, *(str(difference) for difference in found)]
    notes += [f"{init}: no encoder '{name}'; it starts from scratch" for name in encoders if name not in shared]
    cut = clip_config(expected)
    for key, old, new in changes(to_mapping(cut), to_mapping(clip)) if cut is not None else ():
        if key in FITTED:
            raise UserError(
                f"clip.{key}: the encoders of {init} were trained with {old!r}, the recipe says {new!r}; use the former"
            )
        notes.append(f"clip.{key}: pretrained with {old!r}, fine-tuned with {new!r}")
    return Initial(
        encoders={name: trained[name].encoder if name in shared else component for name, component in encoders.items()},
        weights={name: _part(saved.model, f"encoders.{name}.") for name in shared},
        manifest=saved.manifest,
        source=saved.checkpoint_sha256,
        notes=tuple(notes),
    )


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
