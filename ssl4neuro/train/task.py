"""What the training loop needs to know of what it trains."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ssl4neuro.types import Batch


@runtime_checkable
class Task(Protocol):
    """What is trained: a model whose forward returns `loss` and terms, its batches, and a validation."""

    batches_per_epoch: int

    @property
    def model(self) -> nn.Module: ...

    def batches(self, first: int, last: int, workers: int) -> Iterator[Batch]:
        """Stored batches number `first` to `last` (counted over all epochs), this process's share of each."""
        ...

    def views(self, stored: Batch, epoch: int) -> Batch:
        """Augmented views of a stored batch, on the device."""
        ...

    def after_step(self, progress: float) -> None:
        """Whatever follows an update of the weights, e.g. moving averages; `progress` 0..1 of the training."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Measures on validation subjects; `signal` steers early stopping and may be missing."""
        ...

    def alarms(self, measures: Mapping[str, float]) -> list[str]:
        """Sentences about what looks wrong in these measures."""
        ...

    def name_rows(self, rows: Tensor) -> str:
        """Which scans the rows belong to, for messages."""
        ...
