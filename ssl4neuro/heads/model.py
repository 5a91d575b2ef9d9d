"""Encoders, head and loss in one `nn.Module`: `forward(batch)` returns the loss and its terms, `segment` the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders import ENCODERS
from ssl4neuro.errors import UserError
from ssl4neuro.heads import HEADS
from ssl4neuro.heads.segmentation_loss import LossConfig, SegmentationLoss
from ssl4neuro.heads.segmented import Segmented
from ssl4neuro.registry import Component, build, suggest
from ssl4neuro.types import Batch

CINE = "cine"
IGNORED = 255  # mask value of pixels that nobody has judged


@dataclass(frozen=True)
class SegmentationConfig:
    """Everything that determines a network for segmentation and what its answers mean."""

    head: Component
    classes: dict[str, int]  # name -> value in the masks; exclusive; 0 is the background
    encoders: dict[str, Component] = field(default_factory=dict)  # `cine` (static) and `motion`; none for the U-Nets
    structures: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what metrics speak of: unions; by default each class
    lesion: str | None = None  # the structure that many pictures do not show, and that has to be detected
    phases: str | None = None  # the structure that is largest at ED and smallest at ES, where several frames have masks
    frames: int = 10  # that the head sees
    channels: int = 1
    loss: LossConfig = LossConfig()

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: name at least one, e.g. classes: {myocardium: 2}")
        values = list(self.classes.values())
        if len(set(values)) < len(values) or not all(0 < value < IGNORED for value in values):
            raise ValueError(f"classes: each needs a value of its own, 1 to {IGNORED - 1}; 0 is the background")
        for name, parts in self.structures.items():
            for part in parts:
                if part not in self.classes:
                    raise ValueError(f"structures.{name}: no class '{part}'{suggest(part, self.classes)}")
        for key in ("lesion", "phases"):
            name = getattr(self, key)
            if name is not None and name not in self.codes:
                raise ValueError(f"{key}: no structure '{name}'{suggest(name, self.codes)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by code, the background first."""
        return ("background", *self.classes)

    @property
    def codes(self) -> dict[str, tuple[int, ...]]:
        """Structure -> codes of the classes that it is the union of."""
        order = {name: code for code, name in enumerate(self.classes, start=1)}
        unions = self.structures or {name: (name,) for name in self.classes}
        return {name: tuple(order[part] for part in parts) for name, parts in unions.items()}

    def values(self, structure: str) -> tuple[int, ...]:
        """The mask values that a structure is the union of."""
        own = list(self.classes.values())
        return tuple(own[code - 1] for code in self.codes[structure])


class SegmentationModel(nn.Module):
    """A head on its encoders.

    Args:
        config: which ones, and the classes.
    """

    lookup: Tensor

    def __init__(self, config: SegmentationConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders: Mapping[str, nn.Module] = {  # registered by the head, which may need fewer
            name: build(ENCODERS, component, f"encoders.{name}") for name, component in config.encoders.items()
        }
        options = {
            "encoders": dict(self.encoders), "classes": len(config.names), "frames": config.frames, "channels": config.channels,
        }  # fmt: skip
        for given in options:
            if given in config.head.options:
                raise UserError(f"head.{given}: follows from the rest of the recipe; leave it out")
        self.head = build(HEADS, Component(config.head.name, {**config.head.options, **options}), "head")
        self.loss = SegmentationLoss(len(config.names), config.loss)
        lookup = torch.zeros(IGNORED + 1, dtype=torch.int64)
        for code, value in enumerate(config.classes.values(), start=1):
            lookup[value] = code
        lookup[IGNORED] = -1
        self.register_buffer("lookup", lookup, persistent=False)

    def freeze(self, frozen: bool) -> None:
        """Whether the encoders stay as they are, batch statistics included; frozen ones cost no backward pass."""
        for encoder in self.encoders.values():
            encoder.requires_grad_(not frozen)
            encoder.train(self.training and not frozen)

    def encoder_parameters(self) -> set[int]:
        """Identities of the encoders' parameters, which may learn at a rate of their own."""
        return {id(p) for encoder in self.encoders.values() for p in encoder.parameters()}

    def target(self, batch: Batch) -> Int[Tensor, "batch height width"]:
        """Class codes of the first frame, -1 where nobody knows."""
        stored = batch["masks"][CINE][:, 0, 0]
        return torch.where(stored < 0, -1, self.lookup[stored.clamp_min(0)])

    def segment(
        self, x: Float[Tensor, "batch channels time height width"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Segmented:
        """The first frame of each clip, pixel by pixel."""
        return self.head(x, valid)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` and every term, unweighted, for the log."""
        x, valid = batch["inputs"][CINE][:, 0], batch["valid"][CINE][:, 0]
        return self.loss(self.head(x, valid), self.target(batch))
