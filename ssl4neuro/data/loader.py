"""From rows of a prepared cohort to tensors: one batched Arrow read per batch, no augmentation, no grid yet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset

from ssl4neuro.data.clip_loading import ClipConfig, load_clips
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.types import Batch


class CohortRows(Dataset[Batch]):
    """Fetches whole batches of rows in stored form: `map` [rows, voxels] float16, `course` [rows, time] zero-padded float32,
    `cine` [rows, channels, time, height, width] cut and scaled by `clip` (for `motion`, too).

    `data.views` and `data.clip_views` make the augmented views, batched on the device. The cohort is opened again in every
    loader worker, so nothing but a path travels between processes.
    """

    def __init__(
        self,
        cohort: Cohort,
        modalities: Sequence[str],
        targets: Mapping[str, Int[np.ndarray, "rows"]] | None = None,
        clip: ClipConfig | None = None,
    ) -> None:
        missing = [m for m in modalities if m not in cohort.modalities]
        if len(missing) == len(modalities):
            raise UserError(f"{cohort.path}: has {', '.join(cohort.modalities)}, none of {', '.join(modalities)}")
        self.path: Path = cohort.path
        self.modalities = tuple(m for m in modalities if m in cohort.modalities)
        self.absent = tuple(missing)
        self.targets = dict(targets or {})
        self.clip = clip or ClipConfig()
        self._cohort: Cohort | None = cohort

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cohort": None}

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        cohort = self._open()
        chosen = np.asarray(rows, dtype=np.int64)
        index = cohort.index
        values = cohort.fetch(chosen, self.modalities)
        batch = Batch(
            row=torch.from_numpy(chosen),
            subject=torch.from_numpy(index["subject_code"].to_numpy(np.int64)[chosen]),
            group=torch.from_numpy(index["group_code"].to_numpy(np.int64)[chosen]),
            present={m: torch.full((len(chosen),), m in self.modalities) for m in (*self.modalities, *self.absent)},
            inputs={},
            valid={},
            rate={},
            targets={name: torch.from_numpy(codes[chosen]) for name, codes in self.targets.items()},
        )
        if "map" in values:
            batch["inputs"]["map"] = torch.from_numpy(np.ascontiguousarray(values["map"]))
        if "course" in values:
            batch["inputs"]["course"], batch["valid"]["course"] = pad(values["course"])
            batch["rate"]["course"] = torch.from_numpy(index["tr"].to_numpy(np.float32)[chosen])
        if "cine" in values:
            centres = index[["centre_row", "centre_column"]].to_numpy(np.float64)[chosen]
            loaded = load_clips(values["cine"], centres, self.clip)
            batch["inputs"]["cine"], batch["valid"]["cine"] = loaded.x, loaded.valid
            batch["times"] = {"cine": loaded.times}
            batch["context"] = {"slice": torch.from_numpy(index["slice"].to_numpy(np.int64)[chosen])}
            if loaded.masks is not None:
                batch["masks"] = {"cine": loaded.masks}
        return batch

    def _open(self) -> Cohort:
        if self._cohort is None:
            self._cohort = Cohort.open(self.path)
        return self._cohort


def pad(courses: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Courses of different length as one zero-padded [rows, time] tensor with its mask of real positions."""
    lengths = np.array([len(course) for course in courses])
    values = np.zeros((len(courses), int(lengths.max())), dtype=np.float32)
    for i, course in enumerate(courses):
        values[i, : len(course)] = course
    valid = np.arange(values.shape[1]) < lengths[:, None]
    return torch.from_numpy(values), torch.from_numpy(valid)


class _Order:
    """What DataLoader calls a batch sampler: the row numbers of one batch after the other, made when they are needed."""

    def __init__(self, batches: Callable[[], Iterator[np.ndarray]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches():
            yield batch.tolist()


def load_batches(rows: Dataset[Batch], batches: Callable[[], Iterator[np.ndarray]], workers: int = 0) -> Iterator[Batch]:
    """Batches in the given order. The number of workers changes nothing but the speed."""
    loader = DataLoader(
        rows,
        batch_sampler=_Order(batches),
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that starting an iterator leaves the model's random numbers alone
    )
    return iter(loader)


def _as_is(batch: Any) -> Any:
    return batch


def encode_labels(values: Sequence[object]) -> tuple[Int[np.ndarray, "rows"], list[str]]:
    """Integer codes of a label column (-1 where missing) and the names that they stand for, sorted."""
    texts = ["" if value is None or value != value else str(value) for value in values]
    names = sorted(set(texts) - {"", "n/a"})
    codes = {name: code for code, name in enumerate(names)}
    return np.array([codes.get(text, -1) for text in texts], dtype=np.int64), names
