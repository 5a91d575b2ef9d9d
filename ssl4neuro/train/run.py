"""The folder of one training run: resolved configuration, split, environment, log, checkpoints."""

import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ssl4neuro.atomic import write_text
from ssl4neuro.config import read_yaml, to_mapping
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.splits import Split, SplitConfig
from ssl4neuro.errors import UserError
from ssl4neuro.geometry import pack_mask
from ssl4neuro.manifest import Manifest

PACKAGES = ("ssl4neuro", "torch", "torchvision", "lightly", "accelerate", "datasets", "numpy", "nilearn", "scikit-learn")


class Run:
    """Writes what a run leaves behind; only the main process holds one that writes."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes

    def create(self, config: Mapping[str, Any], environment: Mapping[str, Any], split: Mapping[str, Any]) -> None:
        """Make the folder with config.yaml, environment.json and split.json."""
        if not self.writes:
            return
        import yaml

        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        write_text(self.path / "environment.json", json.dumps(environment, indent=1))
        write_text(self.path / "split.json", json.dumps(split, indent=1))

    def log(self, **values: Any) -> None:
        """Append one line to log.jsonl."""
        if self.writes:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")

    def trim_log(self, step: int) -> None:
        """Drop lines after `step` (and a last line cut short), so that a resumed run does not log steps twice."""
        file = self.path / "log.jsonl"
        if not self.writes or not file.is_file():
            return
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line)
            except json.JSONDecodeError:
                break
        write_text(file, "".join(line + "\n" for line in kept))

    def summarise(self, **values: Any) -> None:
        """Write summary.json."""
        if self.writes:
            write_text(self.path / "summary.json", json.dumps(values, indent=1))

    def note(self, name: str, values: Any) -> None:
        """Write a further JSON file."""
        if self.writes:
            write_text(self.path / name, json.dumps(values, indent=1))

    def saved_config(self) -> dict[str, Any]:
        """config.yaml of an existing run.

        Raises:
            UserError: there is none.
        """
        if not (self.path / "config.yaml").is_file():
            raise UserError(f"{self.path}: no run to resume here (config.yaml is missing)")
        return read_yaml(self.path / "config.yaml")

    def refuse_changes(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """A run resumed with other settings would be neither the old run nor the new one.

        Raises:
            UserError: the two differ; names the first setting that does.
        """
        for path, old, new in changes(saved, now):
            raise UserError(
                f"{self.path}: cannot resume, {path} was {old!r} and is {new!r} now; use the old value or another --out"
            )


def changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, old and new value of every leaf in which two nested mappings differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


def contract_of(cohort: Cohort, modalities: Iterable[str], clip: ClipConfig) -> dict[str, Any]:
    """The cohort's own, for the modalities the model sees, with what is done at load: the mask, and how clips are cut."""
    found = {m: dict(cohort.info["contract"][m]) for m in modalities if m in cohort.info["contract"]}
    if "map" in found and cohort.mask is not None:
        found["map"]["mask"] = pack_mask(cohort.mask)
    if cohort.kind == "clips":
        found = {modality: {**entry, "loading": to_mapping(clip)} for modality, entry in found.items()}
    return found


def manifest_of(cohort: Cohort, split: Split) -> Manifest:
    """Subjects whose data shaped the weights: those trained on, and those that chose the best checkpoint."""
    seen = [*split.train, *split.validation]
    hashes = cohort.content_hashes()
    contents = {content for subject in seen for content in hashes.get(subject, ())}
    return Manifest.of(cohort.name, seen, contents)


def strata(cohort: Cohort, split: SplitConfig) -> dict[str, str]:
    """Value of the column to stratify by, of each subject; the first one where it varies between scans."""
    if split.stratify is None:
        return {}
    values = cohort.labels(split.stratify)
    return dict(reversed([(s, str(v)) for s, v in zip(cohort.index["subject"], values, strict=True)]))


def environment(seed: int, device: str, processes: int) -> dict[str, Any]:
    """Versions, seed and hardware that a result depends on; no host or user name."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "seed": seed,
        "device": device,
        "processes": processes,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "versions": versions,
    }
