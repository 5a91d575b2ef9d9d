"""Independent parts of a study in processes of their own, that stop together and can be continued."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.connection import wait as wait_for
from typing import Any

from ssl4neuro.train.interruption import Interrupted, StopRequest

LOOK_S = 0.5  # how often the parent looks whether it was asked to stop


def run_all(work: Callable[..., None], parts: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """`work(*part)` for every part, `jobs` of them at a time; one after another in this process for one job.

    Ctrl-C, or a cluster's SIGTERM, is passed on, so that each can save; nothing new is begun then. The first failure ends the
    others in the same way. Each process gets its share of the threads.

    Args:
        work: importable function that stops at a `StopRequest`; its arguments can be pickled.

    Raises:
        Interrupted: asked to stop.
        Exception: whatever the first failing part raised.
    """
    if jobs == 1 or len(parts) < 2:
        for part in parts:
            work(*part)
        return
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", 0) or os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    todo, running = list(parts), set[Future[None]]()
    failure: BaseException | None = None
    told = False
    with ProcessPoolExecutor(jobs, context, _begin, (threads,)) as pool, StopRequest() as stop:
        while running or (todo and not told):
            while todo and len(running) < jobs and not told:
                running.add(pool.submit(work, *todo.pop(0)))
            done, running = wait(running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            failure = failure or next((error for future in done if (error := future.exception()) is not None), None)
            if (stop.asked or failure is not None) and not told:
                told = True
                for child in multiprocessing.active_children():
                    child.terminate()
    if failure is not None:
        raise failure
    if told:
        raise Interrupted("stopped between two folds; everything is saved")


def _begin(threads: int) -> None:
    """Of a new process. Ctrl-C reaches the parent alone, which passes it on; between two parts there is nothing to save."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # numerical libraries look when they are imported, which is later
    if hasattr(os, "setsid"):
        os.setsid()
    StopRequest().__enter__()  # for good: a part that is only about to begin learns of it, too
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """Whoever kills the parent for good does not mean the children to go on."""
    wait_for([sentinel])
    os._exit(1)
