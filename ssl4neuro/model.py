"""Encoders, projectors and objectives in one `nn.Module`: `forward(batch)` returns the loss and its terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders import ENCODERS, PROJECTORS
from ssl4neuro.encoders.fusion import Fusion
from ssl4neuro.encoders.readout import SessionReadout
from ssl4neuro.errors import UserError
from ssl4neuro.objectives import OBJECTIVES
from ssl4neuro.registry import Component, build, suggest
from ssl4neuro.types import Batch, Encoding, Options

JOINT, COURSE = "joint", "course"


@dataclass(frozen=True)
class ModalityConfig:
    """How one modality is augmented, encoded and projected."""

    encoder: Component
    augment: Component | None = None
    projector: Component = field(default_factory=lambda: Component("mlp"))
    views: int = 1  # augmented views per step

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError("views must be at least 1")


@dataclass(frozen=True)
class FusionConfig:
    """The joint embedding of all modalities."""

    dim: int = 128
    modality_dropout: float = 0.2  # share of training samples that lose one modality, so that either alone works


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the network."""

    modalities: dict[str, ModalityConfig]
    objectives: dict[str, Component]
    fusion: FusionConfig = FusionConfig()

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("at least one modality is needed")
        if not self.objectives:
            raise ValueError("at least one objective is needed")


class Model(nn.Module):
    """Encoders with a projector each, their fusion, and a weighted sum of objectives.

    Embeddings are the encoders' outputs; objectives see projections of them. A projector of whole sessions exists for
    modalities that an objective compares at session level.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        weights, parts = {}, {}
        for name, component in config.objectives.items():
            options: Options = dict(component.options)
            weights[name] = _weight(options.pop("weight", 1.0), f"objectives.{name}.weight")
            parts[name] = build(OBJECTIVES, Component(component.name, options), f"objectives.{name}")
        self.weights = weights
        self.objectives = nn.ModuleDict(parts)
        self._parts: dict[str, Any] = parts  # the same modules, for the type checker
        encoders = {m: build(ENCODERS, c.encoder, f"modalities.{m}.encoder") for m, c in config.modalities.items()}
        self.encoders = nn.ModuleDict(encoders)
        self._check_needs()
        self._bind(encoders)
        dims: dict[str, int] = {m: encoder.dim for m, encoder in encoders.items()}
        self.dims = dims
        self.fusion = Fusion(dims, config.fusion.dim, config.fusion.modality_dropout) if self._fused else None
        dims = {**dims, JOINT: config.fusion.dim}
        projectors = {m: self._projector(m, d) for m, d in dims.items() if (m, "row") in self.needs}
        self.projectors = nn.ModuleDict(projectors)
        self.session_projectors = nn.ModuleDict(
            {m: self._projector(m, d) for m, d in dims.items() if (m, "session") in self.needs}
        )
        self.session_readout = SessionReadout(projectors[self.namer].dim, config.fusion.dim) if self.namer is not None else None
        self._memo: dict[tuple[str, str], Tensor | Encoding] = {}

    @property
    def needs(self) -> frozenset[tuple[str, str]]:
        """(modality, level) pairs that the objectives compare."""
        return frozenset(pair for objective in self._parts.values() for pair in objective.needs)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.config.modalities)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label columns that the objectives look at; empty for label-free pretraining."""
        return tuple(sorted({c for objective in self._parts.values() for c in getattr(objective, "label_columns", ())}))

    def set_levels(self, names: Mapping[str, list[str]]) -> None:
        """Tell objectives which label each code stands for, in the order of the codes; some need to know `pre` from `post`."""
        for objective in self._parts.values():
            if hasattr(objective, "set_levels"):
                objective.set_levels({column: names[column] for column in objective.label_columns})

    def after_step(self, progress: float) -> None:
        """Called after every update of the weights; `progress` 0..1 of the training. Moving averages follow here."""
        for objective in self._parts.values():
            if hasattr(objective, "after_step"):
                objective.after_step(self.encoders, progress)

    def _bind(self, encoders: Mapping[str, nn.Module]) -> None:
        """Give objectives that predict what an encoder sees the encoder to predict for."""
        for name, objective in self._parts.items():
            if hasattr(objective, "bind"):
                try:
                    objective.bind(encoders)
                except (KeyError, ValueError) as error:
                    raise UserError(f"objectives.{name}: {error.args[0]!s}") from error

    @property
    def namer(self) -> str | None:
        """The modality whose projections tell the components of a scan apart when the joint session embedding is read.

        Courses alone rarely say which component they are (DESIGN section 8); maps do.
        """
        others = [m for m in self.config.modalities if m != COURSE and (m, "row") in self.needs]
        reads = (JOINT, "session") in self.needs and COURSE in self.config.modalities
        return others[0] if reads and others else None

    @property
    def _fused(self) -> bool:
        return (JOINT, "row") in self.needs or ((JOINT, "session") in self.needs and self.namer is None)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` and `<objective>/<term>` for the log.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        self._memo = {}
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch["row"].device)
        for name, objective in self.objectives.items():
            found = objective(self, batch)
            total = total + self.weights[name] * found["loss"]
            terms.update({f"{name}/{term}": value.detach() for term, value in found.items()})
        self._memo = {}
        return {"loss": total, **terms}

    def embed(self, batch: Batch, modality: str) -> Encoding:
        """Encoding of all views, flattened to [batch × views, ...], batch before view; computed once per forward."""
        return self._once("embed", modality, lambda: self._encode(batch, modality))

    def project(self, batch: Batch, modality: str) -> Float[Tensor, "batch views proj"]:
        """Projector output of every row and view, not normalised."""

        def compute() -> Tensor:
            if modality == JOINT:
                pooled, views = self._joint(batch)
            else:
                pooled, views = self.embed(batch, modality).pooled, batch["inputs"][modality].shape[1]
            projected = self.projectors[modality](pooled)
            return projected.view(len(batch["row"]), views, -1)

        return self._once("project", modality, compute)

    def project_sessions(
        self, batch: Batch, modality: str
    ) -> tuple[Float[Tensor, "session views proj"], Int[Tensor, "session"]]:
        """Projection of every scan in the batch, in order of first appearance, and the first row of each."""
        number, first = first_rows(batch["group"])

        def compute() -> Tensor:
            if modality == JOINT:
                encoding, views = self._joint_session(batch)
            else:
                encoding, views = self.embed(batch, modality), batch["inputs"][modality].shape[1]
            pooled = self.pool_sessions(encoding, number, views)
            return self.session_projectors[modality](pooled.flatten(0, 1)).view(len(first), views, -1)

        return self._once("project_sessions", modality, compute), first

    def pool_sessions(self, encoding: Encoding, number: Int[Tensor, "batch"], views: int) -> Float[Tensor, "session views dim"]:
        """Embedding of whole scans: the encoder's own where it sees sessions, the mean over the scan's rows otherwise."""
        values = encoding.pooled if encoding.session is None else encoding.session
        values = values.view(len(number), views, -1)
        count = int(number.max()) + 1
        sums = values.new_zeros(count, *values.shape[1:]).index_add(0, number, values)
        return sums / torch.bincount(number, minlength=count).view(-1, 1, 1).to(values.dtype)

    def embeddings(self, batch: Batch) -> dict[str, Tensor]:
        """Embeddings of a batch of whole scans without augmentation: `<modality>`, `joint`, `<modality>_projected` per row,
        and the same under `session:<name>` per scan. Projections are L2-normalised."""
        self._memo = {}
        number, _ = first_rows(batch["group"])
        found: dict[str, Tensor] = {}
        for modality in batch["inputs"]:
            encoding = self.embed(batch, modality)
            found[modality] = encoding.pooled
            found[f"session:{modality}"] = self.pool_sessions(encoding, number, 1).squeeze(1)
            if modality in self.projectors:
                rows = nn.functional.normalize(self.project(batch, modality).squeeze(1), dim=-1)
                found[f"{modality}_projected"] = rows
                mean = self.pool_sessions(Encoding(rows), number, 1).squeeze(1)
                found[f"session:{modality}_projected"] = nn.functional.normalize(mean, dim=-1)
            if modality in self.session_projectors:
                sessions, _ = self.project_sessions(batch, modality)
                found[f"session:{modality}_projected"] = nn.functional.normalize(sessions.squeeze(1), dim=-1)
        if self.fusion is not None:
            found[JOINT] = self._joint(batch)[0]
        if self.fusion is not None or self._reads(batch):
            found[f"session:{JOINT}"] = self.pool_sessions(self._joint_session(batch)[0], number, 1).squeeze(1)
        self._memo = {}
        return found

    def _once(self, what: str, modality: str, compute):
        key = (what, modality)
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    def _encode(self, batch: Batch, modality: str) -> Encoding:
        x, valid = batch["inputs"][modality], batch["valid"][modality]
        views = x.shape[1]
        rate, times = batch.get("rate", {}).get(modality), batch.get("times", {}).get(modality)
        return self.encoders[modality](
            x.flatten(0, 1),
            valid.flatten(0, 1),
            rate=None if rate is None else rate.repeat_interleave(views),
            group=self._view_groups(batch, views),
            times=None if times is None else times.flatten(0, 1),
        )

    def _joint(self, batch: Batch) -> tuple[Tensor, int]:
        """Fused embedding of view v of all modalities, flattened batch before view; the fewest views decide."""
        assert self.fusion is not None
        views = min(batch["inputs"][m].shape[1] for m in batch["inputs"])
        rows = len(batch["row"])

        def compute() -> Tensor:
            pooled, present = {}, {}
            for modality in self.modalities:
                if modality in batch["inputs"]:
                    values = self.embed(batch, modality).pooled
                    pooled[modality] = values.view(rows, -1, values.shape[-1])[:, :views].flatten(0, 1)
                    present[modality] = batch["present"][modality].repeat_interleave(views)
                else:  # the fusion's stand-in takes its place
                    pooled[modality] = torch.zeros(rows * views, self.dims[modality], device=batch["row"].device)
                    present[modality] = torch.zeros(rows * views, dtype=torch.bool, device=batch["row"].device)
            return self.fusion(pooled, present)  # type: ignore[misc]

        return self._once("fuse", JOINT, compute), views

    def _reads(self, batch: Batch) -> bool:
        """Whether the scan's courses can be read in the order that another modality gives them."""
        return self.namer is not None and COURSE in batch["inputs"] and self.namer in batch["inputs"]

    def _joint_session(self, batch: Batch) -> tuple[Encoding, int]:
        """The scan's vector: how its components' courses relate, in the order that the other modality's projections give.

        The projections are read, not trained, here: telling people apart must not bend what tells components apart.
        """
        if not self._reads(batch):
            fused, views = self._joint(batch)
            return Encoding(fused), views
        assert self.namer is not None
        assert self.session_readout is not None
        x, valid = batch["inputs"][COURSE], batch["valid"][COURSE]
        views = x.shape[1]
        names = nn.functional.normalize(self.project(batch, self.namer)[:, 0].detach(), dim=-1).repeat_interleave(views, dim=0)
        session = self.session_readout(names, x.flatten(0, 1), valid.flatten(0, 1), self._view_groups(batch, views))
        return Encoding(session, session=session), views

    def _view_groups(self, batch: Batch, views: int) -> Int[Tensor, "flat"]:
        """Code of each row's scan and view: the views of a scan are sets of their own."""
        number, _ = first_rows(batch["group"])
        return (number[:, None] * views + torch.arange(views, device=number.device)).flatten()

    def _projector(self, modality: str, dim: int) -> Any:
        owner = modality if modality in self.config.modalities else next(iter(self.config.modalities))
        component = self.config.modalities[owner].projector
        options = {"in_dim": dim, **component.options}
        return build(PROJECTORS, Component(component.name, options), f"modalities.{owner}.projector")

    def _check_needs(self) -> None:
        for modality, _ in self.needs:
            if modality != JOINT and modality not in self.encoders:
                raise UserError(f"objectives: no modality '{modality}' in this recipe{suggest(modality, self.encoders)}")


def first_rows(group: Int[Tensor, "batch"]) -> tuple[Int[Tensor, "batch"], Int[Tensor, "session"]]:
    """Number of each row's group in order of first appearance, and the first row of each group."""
    _, inverse = torch.unique(group, return_inverse=True)
    position = torch.arange(len(group), device=group.device)
    last = torch.full((int(inverse.max()) + 1,), len(group), device=group.device)
    first = last.scatter_reduce(0, inverse, position, "amin")
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=group.device)
    return rank[inverse], first[order]


def _weight(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise UserError(f"{where}: a weight is a number, 0 or more, got {value!r}")
    return float(value)


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
