"""The stateless sampling plan: which rows form which batch is a pure function of (seed, epoch).

Nothing is stored, so a resumed run continues with exactly the batch it was killed in, with any number of loader workers. A
batch is a list of units (a row, a scan with all its components, or a subject with all scans); processes share a batch by
units, so that the same samples come in the same order whatever their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from ssl4neuro.errors import UserError

Rows = Int[np.ndarray, "rows"]
Unit = Int[np.ndarray, "_"]  # rows that are drawn together


@dataclass(frozen=True)
class SamplingConfig:
    """How rows are drawn into batches."""

    kind: Literal["rows", "sessions", "subjects", "classes"] = "rows"
    batch_size: int = 64  # units per batch: rows, scans or subjects; with `classes`: classes × samples_per_class
    labels: tuple[str, ...] = ()  # columns that define the classes of P×K sampling
    samples_per_class: int = 4  # K, each from another subject where there are enough
    components: int | None = None  # at most so many components, the same of every scan, drawn anew every epoch

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.samples_per_class < 1:
            raise ValueError("sampling.batch_size and sampling.samples_per_class must be at least 1")
        if self.kind == "classes" and not self.labels:
            raise ValueError("sampling.kind 'classes' needs sampling.labels, the columns that define the classes")


@dataclass(frozen=True)
class Plan:
    """Batches of one part of a cohort.

    Attributes:
        rows: rows of the cohort that may be drawn.
        subject, group: code of the subject and of the scan of each of these rows.
        label: class code of each row, -1 where unlabelled (never drawn by `classes`); only for `classes`.
    """

    config: SamplingConfig
    seed: int
    rows: Rows
    subject: Rows
    group: Rows
    label: Rows | None = None

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise UserError("sampling: no row is left to train on; check the split and the labels")
        if self.config.kind == "classes" and len(self._classes()) < 2:
            raise UserError(
                f"sampling.labels {', '.join(self.config.labels)}: fewer than two classes among the training subjects"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        if self.config.kind == "classes":
            assert self.label is not None
            return max(1, int((self.label >= 0).sum()) // self._batch_rows())
        return max(1, self._unit_count() // self.config.batch_size)

    def epoch(self, epoch: int) -> list[list[Unit]]:
        """The batches of an epoch, each a list of units. The last incomplete batch is left out; the next epoch draws anew."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, 0x504C414E])))
        if self.config.kind == "classes":
            return self._class_batches(generator)
        units = self._units(generator)
        order = generator.permutation(len(units))
        size = min(self.config.batch_size, len(units))
        return [[units[i] for i in order[b * size : (b + 1) * size]] for b in range(len(self))]

    def _unit_count(self) -> int:
        keys = {"rows": self.rows, "sessions": self.group, "subjects": self.subject}[self.config.kind]
        return len(np.unique(keys))

    def _units(self, generator: np.random.Generator) -> list[Unit]:
        if self.config.kind == "rows":
            return [self.rows[i : i + 1] for i in range(len(self.rows))]
        keys = self.group if self.config.kind == "sessions" else self.subject
        units = [self.rows[keys == key] for key in np.unique(keys)]
        limit = self.config.components
        if limit is not None:
            # The same places in every scan: which components were drawn must not tell one scan from another.
            places = np.sort(generator.permutation(max(map(len, units)))[:limit])
            units = [unit[places[places < len(unit)]] for unit in units]
            units = [unit for unit in units if len(unit)]
        return units

    def _classes(self) -> Unit:
        assert self.label is not None
        return np.unique(self.label[self.label >= 0])

    def _batch_rows(self) -> int:
        per_batch = min(len(self._classes()), max(2, self.config.batch_size // self.config.samples_per_class))
        return per_batch * self.config.samples_per_class

    def _class_batches(self, generator: np.random.Generator) -> list[list[Unit]]:
        """P×K: K rows of each of P classes; within a class subjects take turns, so K rows come from K subjects."""
        assert self.label is not None
        k, classes = self.config.samples_per_class, self._classes()
        per_batch = self._batch_rows() // k
        queues = {c: self._taking_turns(np.flatnonzero(self.label == c), generator) for c in classes}
        served = dict.fromkeys(classes.tolist(), 0)
        class_order = generator.permutation(classes)
        batches = []
        for b in range(len(self)):
            chosen = np.sort(np.take(class_order, range(b * per_batch, (b + 1) * per_batch), mode="wrap"))
            units: list[Unit] = []
            for c in chosen.tolist():
                picked = np.take(queues[c], range(served[c], served[c] + min(k, len(queues[c]))), mode="wrap")
                served[c] += k
                units.extend(self.rows[i : i + 1] for i in picked)
            batches.append(units)
        return batches

    def _taking_turns(self, positions: Unit, generator: np.random.Generator) -> Unit:
        """Positions ordered so that every subject appears once before any appears twice."""
        shuffled = generator.permutation(positions)
        subject = self.subject[shuffled]
        turn = np.zeros(len(shuffled), dtype=np.int64)
        for code in np.unique(subject):
            mine = np.flatnonzero(subject == code)
            turn[mine] = np.arange(len(mine))
        return shuffled[np.argsort(turn, kind="stable")]


def share_of(batch: Sequence[Unit], process: int, processes: int) -> Unit:
    """Rows of one process: a contiguous part of the batch's units, so that the processes together keep its order.

    Raises:
        UserError: the batch has fewer units than there are processes.
    """
    if len(batch) < processes:
        raise UserError(
            f"sampling: a batch of {len(batch)} units cannot be shared by {processes} processes; raise sampling.batch_size"
        )
    bounds = np.linspace(0, len(batch), processes + 1).round().astype(int)
    return np.concatenate(batch[bounds[process] : bounds[process + 1]])
