"""A trained model with what it knows about itself: `load("runs/rest20")`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ssl4neuro import checkpoint
from ssl4neuro.config import from_mapping
from ssl4neuro.encoders.weights import no_public_weights
from ssl4neuro.model import Model, ModelConfig


@dataclass(frozen=True)
class Pretrained:
    """Model in evaluation mode, and the checkpoint it came from (contract, manifest, notes)."""

    model: Model
    checkpoint: checkpoint.Checkpoint


def load(run: str | Path, which: Literal["best", "last"] = "best", device: str | torch.device = "cpu") -> Pretrained:
    """Load the encoders of a run.

    Args:
        run: run folder, or one checkpoint in it.
        which: the checkpoint of the best validation (the last one where no validation was made), or the last.
        device: where to put the weights.

    Raises:
        UserError: no good checkpoint there, or its weights do not fit its configuration.
    """
    saved = checkpoint.load(Path(run), which)
    config = from_mapping(ModelConfig, saved.config["model"], str(saved.path / "config.json"))
    with no_public_weights():  # the checkpoint brings its own
        model = Model(config)
    checkpoint.load_into(model, saved.model, str(saved.path))
    return Pretrained(model.to(device).eval(), saved)
