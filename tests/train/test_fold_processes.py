"""Parts of a study in processes of their own: all are done, failures and Ctrl-C end all of them."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.train.fold_processes import run_all
from ssl4neuro.train.interruption import Interrupted, StopRequest


def note(folder: Path, number: int) -> None:
    (folder / f"{number}.txt").write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def fail(folder: Path, number: int) -> None:
    if number == 0:
        raise UserError("part 0 is bad")
    patient(folder, number)


def patient(folder: Path, number: int) -> None:
    """Works until it is asked to stop, as a training does."""
    with StopRequest() as stop:
        (folder / f"{number}.begun").touch()
        for _ in range(3000):
            if stop.asked:
                (folder / f"{number}.saved").touch()
                raise Interrupted("stopped")
            time.sleep(0.01)


def files(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


def test_all_parts_are_done_each_with_its_share_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    run_all(note, [(tmp_path, n) for n in range(3)], 2)
    found = [(tmp_path / f"{n}.txt").read_text().split() for n in range(3)]
    assert {threads for _, threads in found} == {"2"}
    assert os.getpid() not in {int(process) for process, _ in found}
    run_all(note, [(tmp_path, 0)], 2)  # one part needs no process
    assert (tmp_path / "0.txt").read_text().split()[0] == str(os.getpid())


def test_a_failure_ends_the_others_after_they_have_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="part 0 is bad"):
        run_all(fail, [(tmp_path, n) for n in (1, 0, 2)], 2)
    assert [name.replace("begun", "saved") for name in files(tmp_path, ".begun")] == files(tmp_path, ".saved")
    assert "2.begun" not in files(tmp_path, ".begun")


def test_ctrl_c_reaches_every_part_and_nothing_new_begins(tmp_path: Path) -> None:
    def press() -> None:
        while len(files(tmp_path, ".begun")) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted):
        run_all(patient, [(tmp_path, n) for n in range(3)], 2)
    assert files(tmp_path, ".saved") == ["0.saved", "1.saved"]
    assert files(tmp_path, ".begun") == ["0.begun", "1.begun"]


def test_a_stop_within_a_part_is_not_lost() -> None:
    with StopRequest() as outer:
        with StopRequest() as inner:
            os.kill(os.getpid(), signal.SIGINT)
            assert inner.asked
            assert not outer.asked
        assert outer.asked
        with StopRequest() as next_part:
            assert next_part.asked
