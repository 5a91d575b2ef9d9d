"""The only training loop: pretraining and fine-tuning hand it a `Task`.

Everything random is a pure function of (seed, step): the sampling plan, the augmentation, and the model's own generator, which
is seeded anew before every step. A resumed run therefore needs only weights, optimiser moments and a few counters to go on
bit for bit.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ssl4neuro import checkpoint
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Manifest
from ssl4neuro.objectives import NoNegatives
from ssl4neuro.progress import Progress, progress
from ssl4neuro.train.interruption import Interrupted, StopRequest
from ssl4neuro.train.monitors import MonitorConfig
from ssl4neuro.train.optimiser import OptimiserConfig, build_optimiser, rate_at, set_rate
from ssl4neuro.train.run import Run
from ssl4neuro.train.task import Task
from ssl4neuro.types import Batch

ALARMS_FROM = 0.2  # share of the training after which a collapse is one


@dataclass(frozen=True)
class LoopConfig:
    """How long and how a model is trained, and what is kept."""

    epochs: int = 100
    steps: int | None = None  # so many weight updates, however many epochs they are; instead of `epochs`
    precision: Literal["no", "fp16", "bf16", "auto"] = "no"  # auto: the fastest of a few timed steps, memory layout included
    compile: bool = False  # torch.compile the encoders: slower start, faster steps on a GPU
    ema: float | None = None  # decay of an exponential moving average of the weights, which is then what is saved and used
    workers: int = 0  # loader processes; results do not depend on it
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None  # instead of minutes
    keep: int = 2  # checkpoints beside the best one
    log_every: int = 10  # steps
    trackers: tuple[str, ...] = ()  # of Accelerate, e.g. tensorboard; log.jsonl is always written

    def batches(self, per_epoch: int, accumulate: int) -> int:
        """Of the whole run: whole updates only."""
        wanted = self.epochs * per_epoch if self.steps is None else self.steps * accumulate
        return wanted // accumulate * accumulate

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.keep < 1 or self.log_every < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError("loop: epochs, steps, keep and log_every must be at least 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError("loop.ema is a decay between 0 and 1, e.g. 0.999")


@dataclass
class Progressed:
    """Counters that a checkpoint carries."""

    batch: int = 0  # batches done, over all epochs
    best: float | None = None
    stale: int = 0  # validations without improvement
    stopped: bool = False


class Loop:
    """Trains a task.

    Args:
        task: model, batches, validation.
        config, optimiser, monitor: see their dataclasses.
        seed: of the run.
        run: folder that log and checkpoints go to.
        record: contract, manifest and configuration that every checkpoint carries.
    """

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        optimiser: OptimiserConfig,
        monitor: MonitorConfig,
        *,
        accelerator: Accelerator,
        seed: int,
        run: Run,
        contract: Mapping[str, Any],
        manifest: Manifest,
        record: Mapping[str, Any],
    ) -> None:
        self.task, self.config, self.optimiser_config, self.monitor = task, config, optimiser, monitor
        self.accelerator, self.seed, self.run = accelerator, seed, run
        self.contract, self.manifest, self.record = contract, manifest, record
        if config.compile:
            for encoder in getattr(task.model, "encoders", nn.ModuleDict()).values():
                encoder.compile()
        self.model, self.optimiser = accelerator.prepare(task.model, build_optimiser(task.model, optimiser))
        self.ema = AveragedModel(self.bare, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        self.done = Progressed()
        self.total = config.batches(task.batches_per_epoch, optimiser.accumulate)
        if self.total == 0:
            raise UserError("optimiser.accumulate is larger than the number of batches; lower it or train for more epochs")
        self.alarms: list[str] = []
        self.stop = StopRequest()

    @property
    def bare(self) -> nn.Module:
        """The model without the wrappers of Accelerate."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def step(self) -> int:
        """Weight updates done."""
        return self.done.batch // self.optimiser_config.accumulate

    @property
    def steps(self) -> int:
        return self.total // self.optimiser_config.accumulate

    def resume(self) -> list[str]:
        """Continue from the last good checkpoint of the run; returns notes for the user."""
        try:
            saved = checkpoint.load(self.run.path, "last", training=True)
        except UserError:
            if any((self.run.path / "checkpoints").glob("step-*")):
                raise
            return ["no checkpoint was written before the run ended; starting from the beginning"]
        state = saved.training
        if state is None:
            raise UserError(f"{saved.path}: has no training state; only weights can be used")
        checkpoint.load_into(self.bare, state["raw"] if state["raw"] is not None else saved.model, str(saved.path))
        if self.ema is not None:
            checkpoint.load_into(self.ema.module, saved.model, str(saved.path))
            self.ema.n_averaged.fill_(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.done = Progressed(**state["done"])
        self.run.trim_log(self.step)
        return [*saved.notes, f"resumed at step {self.step} of {self.steps}"]

    def fit(self) -> dict[str, Any]:
        """Train to the end, to early stopping, or to an interruption.

        Returns:
            Summary with the best signal, steps, seconds, samples per second and the alarms raised.

        Raises:
            UserError: the loss is not finite or a batch cannot be compared; names the rows.
            Interrupted: after saving.
        """
        started, samples, waited = time.monotonic(), 0, 0.0
        last_save = started
        accumulate = self.optimiser_config.accumulate
        stored = self.task.batches(self.done.batch, self.total, self.config.workers)
        main = self.accelerator.is_main_process
        with self.stop, progress("training", self.steps, "step", show=main) as bar:
            bar.done = self.step
            while self.done.batch < self.total and not self.done.stopped:
                mark = time.monotonic()
                raw = next(stored)
                waited += time.monotonic() - mark
                terms = self._train_batch(raw)
                samples += len(raw["row"]) * self.accelerator.num_processes
                if self.done.batch % accumulate:
                    continue
                elapsed = time.monotonic() - started
                self._report(terms, bar, samples / elapsed, waited / elapsed)
                epoch_ended = (
                    self.done.batch // self.task.batches_per_epoch
                    > (self.done.batch - accumulate) // self.task.batches_per_epoch
                )
                improved = epoch_ended and self._validate()
                finished = self.done.batch >= self.total or self.done.stopped
                stop = self._stop_requested()
                due = (
                    self.step % self.config.checkpoint_steps == 0
                    if self.config.checkpoint_steps
                    else self._agree(time.monotonic() - last_save > 60 * self.config.checkpoint_minutes)
                )
                if improved or finished or stop or due:
                    self._save(improved)
                    last_save = time.monotonic()
                if stop and not finished:
                    raise Interrupted(f"stopped at step {self.step} of {self.steps}; everything is saved in {self.run.path}")
        return self._summary(time.monotonic() - started, samples, waited)

    def _summary(self, seconds: float, samples: int, waited: float) -> dict[str, Any]:
        return {
            "steps": self.step,
            "epochs": self.done.batch / self.task.batches_per_epoch,
            "stopped_early": self.done.stopped,
            "best_signal": self.done.best,
            "signal": self.monitor.signal,
            "seconds": round(seconds, 2),
            "samples_per_s": round(samples / max(seconds, 1e-9), 2),
            "data_wait": round(waited / max(seconds, 1e-9), 4),
            "alarms": self.alarms,
        }

    def _train_batch(self, raw: Batch) -> dict[str, float]:
        epoch = self.done.batch // self.task.batches_per_epoch
        torch.manual_seed(mix(self.seed, self.done.batch, self.accelerator.process_index))
        last = (self.done.batch + 1) % self.optimiser_config.accumulate == 0
        self.model.train()
        if self.done.batch % self.optimiser_config.accumulate == 0:
            set_rate(self.optimiser, rate_at(self.step, self.steps, self.optimiser_config))
        sync = _nothing() if last else self.accelerator.no_sync(self.model)
        with sync, self._readable_failure(raw):
            batch = self.task.views(raw, epoch)
            with self.accelerator.autocast():
                terms = self.model(batch)
            loss = terms["loss"]
            if not torch.isfinite(loss):
                raise FloatingPointError(_first_bad_term(terms))
            self.accelerator.backward(loss / self.optimiser_config.accumulate)
        if last:
            if self.optimiser_config.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.optimiser_config.clip)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.task.after_step((self.done.batch + 1) / self.total)
            if self.ema is not None:
                self.ema.update_parameters(self.bare)
        self.done.batch += 1
        return {name: float(value.detach()) for name, value in terms.items()}

    @contextmanager
    def _readable_failure(self, raw: Batch) -> Iterator[None]:
        """Turn what an objective cannot work with into one line that names the scans."""
        try:
            yield
        except FloatingPointError as error:
            raise UserError(
                f"step {self.step}: the loss is not finite ({error}) for {self.task.name_rows(raw['row'])}; "
                "lower optimiser.rate, or look at these scans with `ssl4neuro doctor`"
            ) from error
        except NoNegatives as error:
            raise UserError(
                f"step {self.step}: {error}; the batch holds {self.task.name_rows(raw['row'])}: {error.advice}"
            ) from error

    def _report(self, terms: Mapping[str, float], bar: Progress, speed: float, wait: float) -> None:
        bar.advance(1, loss=f"{terms['loss']:.4g}", speed=f"{speed:.3g} samples/s", wait=f"{wait:.1%}")
        if self.step % self.config.log_every and self.done.batch < self.total:
            return
        rate = self.optimiser.param_groups[0]["lr"]
        epoch = (self.done.batch - 1) // self.task.batches_per_epoch
        values = {**terms, "lr": rate, "samples_per_s": round(speed, 2), "data_wait": round(wait, 4)}
        self.run.log(step=self.step, epoch=epoch, split="train", **values)
        if self.config.trackers:
            self.accelerator.log({f"train/{k}": v for k, v in values.items()}, step=self.step)

    def _validate(self) -> bool:
        """Validate when due; true when the signal is the best so far."""
        epoch = self.done.batch // self.task.batches_per_epoch
        if epoch % self.monitor.every and self.done.batch < self.total:
            return False
        model = self.ema.module if self.ema is not None else self.bare
        model.eval()
        torch.manual_seed(mix(self.seed, epoch, 1 << 20))
        with torch.no_grad(), self.accelerator.autocast():
            measures = self.task.validate(model)
        model.train()
        self.run.log(step=self.step, epoch=epoch - 1, split="validation", **measures)
        if self.config.trackers:
            self.accelerator.log({f"validation/{k}": v for k, v in measures.items()}, step=self.step)
        if self.done.batch >= ALARMS_FROM * self.total:  # an untrained network looks collapsed
            self._raise_alarms(self.task.alarms(measures))
        signal_value = measures.get("signal")
        if signal_value is None:
            return False
        if self.monitor.better(signal_value, self.done.best):
            self.done.best, self.done.stale = signal_value, 0
            return True
        self.done.stale += 1
        self.done.stopped = self.monitor.patience is not None and self.done.stale >= self.monitor.patience
        return False

    def _raise_alarms(self, alarms: list[str]) -> None:
        """Print those that are new; what has recovered is no alarm any more."""
        known = {alarm.split(":")[0] for alarm in self.alarms}
        for alarm in alarms:
            if alarm.split(":")[0] not in known:
                self.accelerator.print(f"warning: {alarm}")
        self.alarms = alarms

    def _save(self, best: bool) -> None:
        weights = checkpoint.state_of(self.accelerator, self.model)
        averaged = self.ema is not None
        training = {
            "raw": dict(weights) if averaged else None,
            "averaged": int(self.ema.n_averaged) if self.ema is not None else 0,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            "done": vars(self.done).copy(),
        }
        checkpoint.save_on_main(
            self.accelerator,
            self.run.path,
            step=self.step,
            epoch=self.done.batch // self.task.batches_per_epoch,
            model=self.ema.module.state_dict() if self.ema is not None else weights,
            training=training,
            contract=dict(self.contract),
            manifest=self.manifest,
            config=dict(self.record),
            metric=self.done.best,
            best=best,
            keep=self.config.keep,
        )

    def _stop_requested(self) -> bool:
        return self._agree(self.stop.asked)

    def _agree(self, flag: bool) -> bool:
        """True on every process when it is true on any."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)


def make_accelerator(config: LoopConfig, optimiser: OptimiserConfig, folder: Path) -> Accelerator:
    """Accelerator for the hardware that `accelerate launch` chose."""
    return Accelerator(
        mixed_precision=None if config.precision == "auto" else config.precision,
        gradient_accumulation_steps=1,  # the loop counts by itself, since its batches do not come from Accelerate
        log_with=list(config.trackers) or None,
        project_dir=folder if config.trackers else None,
        # a modality that a batch lacks, or a branch that no objective uses, leaves parameters without a gradient
        # the other processes wait while one tests a head on many scans
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(hours=6)),
        ],
    )


def mix(*numbers: int) -> int:
    """A 63-bit seed from several integers (splitmix64 finaliser), so that neighbouring steps get unrelated streams."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _first_bad_term(terms: Mapping[str, Tensor]) -> str:
    bad = [name for name, value in terms.items() if name != "loss" and not math.isfinite(float(value))]
    return f"{bad[0]} is {float(terms[bad[0]])}" if bad else "only the weighted sum overflows"
