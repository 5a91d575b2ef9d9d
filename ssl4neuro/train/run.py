"""The folder of one training run: resolved configuration, split, environment, log, checkpoints."""

import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ssl4neuro.atomic import write_text
from ssl4neuro.config import read_yaml
from ssl4neuro.errors import UserError

PACKAGES = ("ssl4neuro", "torch", "torchvision", "lightly", "accelerate", "datasets", "numpy", "nilearn", "scikit-learn")


class Run:
    """Writes what a run leaves behind; only the main process holds one that writes."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes

    def create(self, config: Mapping[str, Any], environment: Mapping[str, Any], split: Mapping[str, list[str]]) -> None:
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
