"""Progress of long work: a bar with rate and time left in a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
LOG_EVERY_S = 30.0


class Progress:
    """Handle that a long job reports to: `advance(1, loss="2.31")`."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started = self.last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def advance(self, n: int = 1, **fields: str) -> None:
        """`n` more units are done; `fields` are shown beside the bar."""
        self.done += n
        text = "  ".join(f"{key} {value}" for key, value in fields.items())
        if self._bar is not None:
            self._bar.update(self._task, advance=n, fields=text, rate=f"{self._rate():.3g} {self.unit}/s")
        elif time.monotonic() - self.last_line > LOG_EVERY_S:
            self.last_line = time.monotonic()
            left = f", {(self.total - self.done) / max(self._rate(), 1e-9):.0f} s left" if self.total and self.done else ""
            of = f"/{self.total}" if self.total else ""
            print(
                f"{self.description}: {self.done}{of} {self.unit}s, {self._rate():.3g}/s{left}  {text}",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self.started, 1e-9)


@contextmanager
def progress(description: str, total: int | None = None, unit: str = "scan", *, show: bool = True) -> Iterator[Progress]:
    """Show the progress of a block on standard error. `show=False` keeps secondary processes quiet."""
    handle = Progress(description, total, unit)
    if not show or not sys.stderr.isatty():
        if not show:
            handle.last_line = float("inf")
        yield handle
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), TextColumn("{task.fields[fields]}"),
    ]  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        handle._bar, handle._task = bar, bar.add_task(description, total=total, fields="", rate="")
        yield handle


def track(items: Iterable[Item], description: str, total: int | None = None, unit: str = "scan") -> Iterator[Item]:
    """Iterate with a progress bar."""
    with progress(description, total if total is not None else getattr(items, "__len__", lambda: None)(), unit) as bar:
        for item in items:
            yield item
            bar.advance()
