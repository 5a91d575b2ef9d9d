"""A fine-tuning recipe."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ssl4neuro.config import to_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.plan import SamplingConfig
from ssl4neuro.data.splits import SplitConfig
from ssl4neuro.evaluate.postprocess import PostprocessConfig
from ssl4neuro.heads.model import SegmentationConfig
from ssl4neuro.heads.segmentation_loss import LossConfig
from ssl4neuro.registry import Component
from ssl4neuro.train.loop import LoopConfig
from ssl4neuro.train.monitors import MonitorConfig
from ssl4neuro.train.optimiser import OptimiserConfig

SWITCHES = ("data", "out", "resume", "estimate", "ablations", "overlays")  # of the command line; not what makes the result
SPEED = ("workers", "checkpoint_minutes", "checkpoint_steps", "keep", "log_every", "trackers")


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning recipe. A YAML file or flags give what differs from these defaults."""

    head: Component
    classes: dict[str, int]  # name -> value in the masks
    task: Literal["segmentation"] = "segmentation"
    encoders: dict[str, Component] = field(default_factory=dict)  # from scratch; with `init` those of the checkpoint
    structures: dict[str, tuple[str, ...]] = field(default_factory=dict)  # unions of classes that are measured
    lesion: str | None = None  # the structure that has to be detected
    phases: str | None = None  # the structure whose size tells ED from ES
    data: str = ""  # prepared cohort
    out: str = ""  # run folder to create
    init: str = ""  # run or checkpoint of pretraining that the encoders start from; a crossfit run gives each fold its own
    adapt: tuple[str, ...] = ()  # differences from the checkpoint's contract to bridge although that is not exact
    clip: ClipConfig = ClipConfig(frames=10)  # how clips are cut
    augment: Component | None = field(default_factory=lambda: Component("clip"))
    loss: LossConfig = LossConfig()
    freeze: bool = False  # the encoders stay as they are
    freeze_epochs: int = 0  # the encoders stay as they are for so long
    still: bool = False  # a control: the frame to be segmented is shown instead of the beat
    folds: int = 0  # K folds of subjects, each tested once; 0 tests on the hold-out of one split
    patients: tuple[int, ...] = ()  # few-label runs: train on so many subjects, in every fold; no validation
    label_fraction: tuple[float, ...] = ()  # the same, as shares of the training subjects
    postprocess: PostprocessConfig = PostprocessConfig()
    tta: bool = False  # test on mirrored views too; for models trained with mirroring
    baselines: bool = True  # an empty mask and a threshold on motion, where there is a lesion
    overlays: int = 12  # pictures of test cases, failures first
    allow_overlap: bool = False  # test on subjects that the pretraining has seen, and stamp the result
    sampling: SamplingConfig = SamplingConfig(batch_size=8)
    split: SplitConfig = SplitConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    loop: LoopConfig = LoopConfig()
    monitor: MonitorConfig = MonitorConfig(signal="dice", patience=None)
    ablations: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # table -> row -> keys that differ
    seed: int = 0
    resume: bool = field(default=False)
    estimate: bool = field(default=False)

    def __post_init__(self) -> None:
        if self.folds == 1 or self.folds < 0:
            raise ValueError("folds: at least 2, or 0 for a single split")
        if self.folds and (self.split.hold_subjects or self.split.hold_sites):
            raise ValueError(
                "folds test everybody once, so nobody can be held out by name; leave folds out (--folds 0), or the names"
            )
        if self.clip.sampling != "cycle":
            raise ValueError("clip.sampling: only cycle shows the frame to be segmented first")
        if self.patients and self.label_fraction:
            raise ValueError("patients and label_fraction are two ways to say how many subjects; give one of them")
        if any(n < 1 for n in self.patients) or not all(0 < share <= 1 for share in self.label_fraction):
            raise ValueError("patients are whole numbers from 1, label_fraction shares above 0 up to 1")
        if self.loop.precision == "auto":
            raise ValueError("loop.precision auto is for pretraining; name a precision: no, bf16 or fp16")
        if self.monitor.signal not in ("dice", "loss"):
            raise ValueError("monitor.signal: a head is watched by dice or loss")
        _ = self.segmentation(self.encoders)

    def segmentation(self, encoders: dict[str, Component]) -> SegmentationConfig:
        """What of the recipe determines the network and its answers."""
        return SegmentationConfig(
            self.head, self.classes, encoders, self.structures, self.lesion, self.phases, self.clip.frames,
            self.clip.channels, self.loss,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        mapping = to_mapping(self)
        for key in SWITCHES:
            mapping.pop(key)
        for key in SPEED:
            mapping["loop"].pop(key)
        return mapping
