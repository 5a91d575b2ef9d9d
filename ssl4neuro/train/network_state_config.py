"""The recipe of a network-state study: which encoder is trained, how the subjects are divided, what is scored."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ssl4neuro.config import to_mapping
from ssl4neuro.data.plan import SamplingConfig
from ssl4neuro.data.splits import SplitConfig
from ssl4neuro.evaluate.network_state.fold import StageTwo
from ssl4neuro.model import FusionConfig, ModalityConfig
from ssl4neuro.registry import Component
from ssl4neuro.train.loop import LoopConfig, mix
from ssl4neuro.train.monitors import MonitorConfig
from ssl4neuro.train.optimiser import OptimiserConfig
from ssl4neuro.train.pretrain import PretrainConfig

SWITCHES = ("data", "out", "resume", "estimate", "jobs", "thorough", "ablations")  # not what makes the result
POOLING = ("bootstrap", "permutations")  # touch no fold: the results are made again
SPEED = ("workers", "checkpoint_minutes", "checkpoint_steps", "keep", "log_every", "trackers")
NETWORK = "network"  # column of the rows of every ICA cohort
INNER_FOLDS = 4  # of the outer training subjects; `inner` says how many of them are used
SIMILAR = 0.1  # temperature of O1 and O3

Objectives = dict[str, Component]


@dataclass(frozen=True)
class Preset:
    """One way to train the encoder: method section 4.

    Attributes:
        sampling: `classes` (P×K of network and state) or `subjects` (both scans of each).
        whole: the objectives shape the embedding itself, not a projection of it.
        dropout: of modalities in the fusion, in the place of the recipe's.
    """

    objectives: Callable[["NetworkStateConfig"], Objectives]
    sampling: Literal["classes", "subjects"]
    whole: bool = False
    dropout: float | None = None


def _cross(config: "NetworkStateConfig", weight: float) -> Objectives:
    """O3: a component's map and its course belong together."""
    if not {"map", "course"} <= set(config.modalities):
        return {}
    options = {"between": ["map", "course"], "negatives": "all", "temperature": SIMILAR, "weight": weight}
    return {"cross_modal": Component("infonce", options)}


def _paper(config: "NetworkStateConfig") -> Objectives:
    """O1 on network and state with its coarser level, and half of O3."""
    options = {"on": config.embedded, "labels": [NETWORK, config.state], "coarse": [NETWORK], "temperature": SIMILAR}
    return {"states": Component("supcon", options), **_cross(config, 0.5)}


def _each_modality(config: "NetworkStateConfig") -> Objectives:
    """O1, softer, on the joint embedding and on each modality (a course does not say its network), and a tenth of O3."""

    def states(on: str) -> Component:
        labels = [config.state] if on == "course" else [NETWORK, config.state]
        return Component("supcon", {"on": on, "labels": labels, "temperature": 0.5})

    parts = dict.fromkeys([config.embedded, *config.modalities])
    return {**{f"{name}_states": states(name) for name in parts}, **_cross(config, 0.1)}


def _author_repo(config: "NetworkStateConfig") -> Objectives:
    """O2: the two scans of a patient's network are the positive pair."""
    names = {"on": config.embedded, "state": config.state, "network": NETWORK, "states": list(config.states)}
    return {"pairs": Component("paired", {"preset": "author_repo", **names})}


def _change_aware(config: "NetworkStateConfig") -> Objectives:
    """O5: half of the embedding for who it is, half for what changed."""
    names = {"on": config.embedded, "state": config.state, "network": NETWORK, "states": list(config.states)}
    return {"change": Component("change_aware", names)}


def _label_free(config: "NetworkStateConfig") -> Objectives:
    """O3 and O4: nothing knows the state."""
    views = {m: Component("infonce", {"between": [m], "temperature": SIMILAR}) for m in config.modalities}
    return {**_cross(config, 1.0), **views}


PRESETS: dict[str, Preset] = {
    "paper": Preset(_paper, "classes"),
    "each_modality": Preset(_each_modality, "subjects", dropout=0.0),
    "author_repo": Preset(_author_repo, "subjects"),
    "change_aware": Preset(_change_aware, "subjects", whole=True),
    "label_free": Preset(_label_free, "subjects"),
}


@dataclass(frozen=True)
class NetworkStateConfig:
    """A network-state study. A YAML file or flags give what differs from these defaults."""

    modalities: dict[str, ModalityConfig]
    task: Literal["network_state"] = "network_state"
    preset: Literal["paper", "each_modality", "author_repo", "change_aware", "label_free"] = "paper"
    objectives: dict[str, Component] = field(default_factory=dict)  # instead of the preset's
    data: str = ""  # prepared cohort
    out: str = ""  # run folder to create
    state: str = "state"  # label column of the scans
    before: str = "pre"  # its earlier value
    after: str = "post"  # its later value, the positive class
    networks: tuple[str, ...] = ()  # those studied; all named ones when empty
    cells: Literal["per_component", "aggregated"] = "per_component"  # a network's components of a scan apart, or as one
    folds: int = 5  # outer folds of subjects
    repeats: int = 1  # with another division each
    inner: int = 1  # of four inner folds so many are used to choose and calibrate, each with an encoder of its own
    thorough: bool = False  # 10 repeats of 5 outer and 4 inner folds
    stratify: str | None = "site"  # label column spread evenly over the folds
    fusion: FusionConfig = FusionConfig()
    sampling: SamplingConfig | None = None  # the preset's: network × state in every batch, or whole subjects
    optimiser: OptimiserConfig = OptimiserConfig()
    loop: LoopConfig = LoopConfig(epochs=40)  # a fixed schedule: no subject is spent on stopping early
    stage_two: StageTwo = StageTwo()
    bootstrap: int = 2000
    permutations: int = 1000  # within subjects, on held-out scores
    ablations: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # table -> row -> keys that differ
    seed: int = 0
    jobs: int = 1  # folds at the same time, each in a process of its own
    resume: bool = field(default=False)
    estimate: bool = field(default=False)

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1 or not 1 <= self.inner <= INNER_FOLDS or self.jobs < 1:
            raise ValueError(f"folds must be 2 or more, repeats and jobs 1 or more, inner 1 to {INNER_FOLDS}")
        if self.stratify == self.state:
            raise ValueError(
                f"stratify {self.state}: every subject has both states, so it spreads nothing; name a column such as site"
            )
        if self.before == self.after:
            raise ValueError(f"before and after are both '{self.before}'")
        if self.loop.precision == "auto":
            raise ValueError("loop.precision auto is for pretraining; name a precision: no, bf16 or fp16")

    @property
    def states(self) -> tuple[str, str]:
        return self.before, self.after

    @property
    def embedded(self) -> str:
        """What represents a component: the fusion of its modalities, or the only one."""
        return "joint" if len(self.modalities) > 1 else next(iter(self.modalities))

    @property
    def settled(self) -> "NetworkStateConfig":
        """With `thorough` spelt out."""
        return replace(self, repeats=10, folds=5, inner=4, thorough=False) if self.thorough else self

    def encoder(self, out: str, number: int, resume: bool = False) -> PretrainConfig:
        """The recipe of encoder `number` of the study, for the training loop."""
        preset, modalities = PRESETS[self.preset], self.modalities
        if preset.whole and not self.objectives:
            modalities = {name: replace(m, projector=Component("identity")) for name, m in modalities.items()}
        if self.preset == "label_free" and not self.objectives:
            modalities = {name: replace(m, views=max(2, m.views)) for name, m in modalities.items()}
        fusion = self.fusion
        if preset.dropout is not None and not self.objectives:
            fusion = replace(fusion, modality_dropout=preset.dropout)
        return PretrainConfig(
            modalities=modalities,
            objectives=self.objectives or preset.objectives(self),
            data=self.data,
            out=out,
            fusion=fusion,
            sampling=self.sampling or self._sampling(preset.sampling),
            split=SplitConfig(holdout=0.0, validation=0.0),  # the study says who is held out
            optimiser=self.optimiser,
            loop=self.loop,
            monitor=MonitorConfig(patience=None),
            seed=mix(self.seed, number) & 0x7FFFFFFF,
            resume=resume,
        )

    def _sampling(self, kind: Literal["classes", "subjects"]) -> SamplingConfig:
        if kind == "classes":
            return SamplingConfig("classes", batch_size=60, labels=(NETWORK, self.state), samples_per_class=6)
        return SamplingConfig("subjects", batch_size=6)

    def identity(self) -> dict[str, Any]:
        """What a resumed study must share with the interrupted one."""
        mapping = to_mapping(self.settled)
        for key in (*SWITCHES, *POOLING):
            mapping.pop(key)
        for key in SPEED:
            mapping["loop"].pop(key)
        return mapping
