"""A model and a batch small enough to check by hand, and the cases that two processes are compared on."""

import torch
from torch import Tensor, nn

from ssl4neuro.encoders.tubelet import TubeletViT
from ssl4neuro.objectives import OBJECTIVES
from ssl4neuro.registry import Component, build

FEATURES, DIM = 5, 4
CLIPS = ("masked_clip", "predictive", "temporal_order")  # objectives that feed clips to an encoder themselves


class FakeModel(nn.Module):
    """A linear projection per modality; sessions are means over their rows, `joint` the sum over modalities.

    For objectives that feed clips to an encoder, there is one.
    """

    def __init__(self, modalities: tuple[str, ...] = ("map", "course", "cine"), seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict({m: nn.Linear(FEATURES, DIM) for m in modalities}).double()
        self.encoders = nn.ModuleDict({"cine": TubeletViT(dim=16, depth=2, heads=2, patch=(2, 2, 2))}).double()

    def project(self, batch, modality: str) -> Tensor:
        if modality == "joint":
            views = min(x.shape[1] for x in batch["inputs"].values())
            return torch.stack([self.project(batch, m)[:, :views] for m in batch["inputs"]]).sum(0).tanh()
        return self.layers[modality](batch["inputs"][modality])

    def project_sessions(self, batch, modality: str) -> tuple[Tensor, Tensor]:
        group = batch["group"].tolist()
        order = list(dict.fromkeys(group))
        rows = self.project(batch, modality)
        means = [rows[[i for i, g in enumerate(group) if g == wanted]].mean(0) for wanted in order]
        return torch.stack(means), torch.tensor([group.index(wanted) for wanted in order])


def make_batch(subjects: int = 4, views: int = 2, seed: int = 1, absent: bool = True) -> dict:
    """Two sessions per subject (all `pre` before all `post`), two networks and two rows per session and network.

    Some rows lack their course and some a label. States are coded 1 for pre and 0 for post, as in alphabetical order.
    """
    generator = torch.Generator().manual_seed(seed)
    index = [(s, state, n) for state in (1, 0) for s in range(subjects) for n in range(2) for _ in range(2)]
    subject, state, network = torch.tensor(index).T.contiguous()
    count = len(index)
    shared = torch.randn(count, 1, FEATURES, generator=generator, dtype=torch.float64)
    inputs = {
        m: shared + torch.randn(count, views, FEATURES, generator=generator, dtype=torch.float64)
        for m in ("map", "course", "cine")
    }
    present = {m: torch.ones(count, dtype=torch.bool) for m in inputs}
    if absent:
        present["course"][[1, 6, -1]] = False
        state, network = state.clone(), network.clone()
        state[3], network[5] = -1, -1
    return {
        "row": 100 + torch.randperm(count, generator=generator),
        "subject": subject,
        "group": 2 * subject + torch.tensor([i[1] for i in index]),
        "present": present,
        "inputs": inputs,
        "valid": {},
        "targets": {"state": state, "network": network},
    }


def make_clips(subjects: int = 4, views: int = 2, seed: int = 1, absent: bool = True) -> dict:
    """The rows of `make_batch` as clips of 3 to 6 valid frames, with anatomy in some of the frames; some clips are absent."""
    batch = make_batch(subjects, views, seed, absent)
    generator = torch.Generator().manual_seed(seed)
    count, shape = len(batch["row"]), (6, 6, 5)
    length = torch.randint(3, 7, (count, views, 1), generator=generator)
    valid = torch.arange(6) < length
    x = torch.randn(count, views, 1, *shape, generator=generator, dtype=torch.float64)
    labels = (torch.rand(count, views, *shape, generator=generator) > 0.8).long()
    labels[:, :, 1::2] = -1
    present = torch.ones(count, dtype=torch.bool)
    if absent:
        present[[1, 6, -1]] = False
    return {
        **{key: batch[key] for key in ("row", "subject", "group", "targets")},
        "present": {"cine": present},
        "inputs": {"cine": x * valid[:, :, None, :, None, None]},
        "valid": {"cine": valid},
        "times": {"cine": torch.where(valid, torch.arange(6) * 0.04, torch.nan)},
        "rate": {"cine": torch.full((count,), 0.04)},
        "masks": {"cine": labels},
        "context": {"slice": torch.arange(count) % 4},
    }


def case_batch(name: str, **options) -> dict:
    """The batch that the objective of a case wants."""
    return (make_clips if name.split("-")[0] in CLIPS else make_batch)(**options)


def take(batch: dict, rows) -> dict:
    """The batch of some of the rows, in that order."""
    return {
        key: {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value[rows] for key, value in batch.items()
    }


CASES: dict[str, dict] = {
    "infonce": {},
    "infonce-chunk": {"chunk": 3, "learn_temperature": True},
    "infonce-three": {"between": ("map", "course", "cine"), "negatives": "other_sessions"},
    "infonce-simclr": {"between": ("map",), "negatives": "all"},
    "infonce-simclr-chunk": {"between": ("course",), "chunk": 5},
    "infonce-session": {"level": "session", "learn_temperature": True},
    "infonce-session-joint": {"level": "session", "between": ("joint",)},
    "infonce-same_session": {"negatives": "same_session", "symmetric": False},
    "siglip": {},
    "siglip-views": {"between": ("course",), "negatives": "all", "chunk": 4},
    "siglip-session": {"level": "session"},
    "supcon": {},
    "supcon-refined": {"coarse": ("network",), "hard_negative_weight": 2.0, "margin": 0.5, "chunk": 7},
    "supcon-session": {"on": "map", "level": "session", "labels": ("state",)},
    "supcon-session-joint": {"level": "session", "labels": ("state",)},
    "paired": {"learn_temperature": True},
    "paired-all": {"same_subject": True, "in_view": True, "on": "course"},
    "change_aware": {},
    "change_aware-cells": {"on": "map", "labels": ("network", "state"), "share": 0.25},
    "vicreg": {},
    "vicreg-session": {"level": "session", "between": ("map",)},
    "barlow_twins": {"between": ("map", "course", "cine")},
    "masked_clip": {},
    "masked_clip-random": {"mode": "random", "ratio": 0.6, "anatomy": True, "normalise": False},
    "masked_clip-slices": {"mode": "block", "ratio": 0.5, "slice_dropout": 0.4},
    "predictive": {"blocks": 1, "area": 0.4, "aspect": (1.0, 1.0)},  # equally many hidden places in all clips
    "temporal_order": {},
    "temporal_order-shift": {"task": "shift", "bins": 3},
}


def build_case(name: str, model: FakeModel | None = None) -> nn.Module:
    return bound(build(OBJECTIVES, Component(name.split("-")[0], CASES[name])), model)


def bound(objective: nn.Module, model: FakeModel | None) -> nn.Module:
    """What a model does with its objectives."""
    if model is not None and hasattr(objective, "bind"):
        objective.bind(model.encoders)
    return objective
