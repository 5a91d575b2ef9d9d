"""Every shipped recipe loads, builds its model, and stays short."""

from pathlib import Path

import pytest

from ssl4neuro.augment import AUGMENTATIONS
from ssl4neuro.config import load, read_yaml
from ssl4neuro.heads.model import SegmentationModel
from ssl4neuro.model import Model
from ssl4neuro.registry import build
from ssl4neuro.shipped import finetuning, folder, recipes, summary
from ssl4neuro.train.ablate import variants
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.network_state_config import PRESETS, NetworkStateConfig
from ssl4neuro.train.pretrain import PretrainConfig


@pytest.mark.parametrize("recipe", [r for r in recipes() if not finetuning(r)], ids=lambda path: path.stem)
def test_pretraining_recipe(recipe: Path) -> None:
    config = load(PretrainConfig, recipe)
    Model(config.model)
    for modality in config.modalities.values():
        if modality.augment is not None:
            build(AUGMENTATIONS, modality.augment)
    assert len(summary(recipe)) > 20


TASK = {r: read_yaml(r).get("task", "segmentation") for r in recipes() if finetuning(r)}


@pytest.mark.parametrize("recipe", [r for r, task in TASK.items() if task == "segmentation"], ids=lambda path: path.stem)
def test_segmentation_recipe(recipe: Path) -> None:
    config = load(FinetuneConfig, recipe)
    SegmentationModel(config.segmentation(config.encoders))
    assert config.augment is not None
    build(AUGMENTATIONS, config.augment)
    assert len(summary(recipe)) > 20


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", [r for r, task in TASK.items() if task == "network_state"], ids=lambda path: path.stem)
def test_network_state_recipe(recipe: Path, preset: str) -> None:
    """With every preset and every row of its ablations."""
    config = load(NetworkStateConfig, recipe, ["--preset", preset, "--out", "run"])
    for variant in (config, *variants(config).values()):
        encoder = variant.encoder("run", 0)
        Model(encoder.model)
        for modality in encoder.modalities.values():
            if modality.augment is not None:
                build(AUGMENTATIONS, modality.augment)
    assert len(summary(recipe)) > 20


def test_scripts_are_thin() -> None:
    for script in folder().glob("*.py"):
        assert len(script.read_text().splitlines()) <= 30
