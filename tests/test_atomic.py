"""Whatever happens while something is written: the old version, the new one, or one readable line."""

import os
import resource
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl4neuro import atomic
from ssl4neuro.errors import UserError


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def forked(action) -> tuple[int, str]:
    """Wait status and message of `action` in a child process, which nothing it does to itself can harm us."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # never returns
        text = "no exception"
        try:
            action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    return os.waitpid(child, 0)[1], text


def write_tree(path: Path, text: str) -> None:
    with atomic.new_folder(path, replace=True) as folder:
        (folder / "inner").mkdir()
        for name in ("a", "inner/b"):
            (folder / name).write_text(text)


def read_tree(path: Path) -> set[str]:
    return {(path / name).read_text() for name in ("a", "inner/b")}


def kill_at(event: int, events: set[str]) -> None:
    """From now on the `event`-th of these audit events ends this process, before what it announces has happened."""
    count = 0

    def hook(name: str, arguments: tuple) -> None:
        nonlocal count
        if name in events:
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


EVENTS = {
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
    "tempfile.mkdtemp",
    "ctypes.dlopen",
}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_kill_at_any_moment_leaves_one_version(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)
    write_tree(tmp_path / "probe", "old")
    if exchange and not atomic._exchange(tmp_path / "probe", tmp_path / "probe"):
        pytest.skip("this file system cannot exchange two names")
    outcomes, event = [], 0
    while "done" not in outcomes:
        event += 1
        path = tmp_path / f"{event}" / "tree"
        write_tree(path, "old")

        def overwrite(event=event, path=path):
            kill_at(event, EVENTS)
            write_tree(path, "new")

        status, _ = forked(overwrite)
        if not path.exists():  # only between the two renames, and then the old version lies beside it
            assert not exchange
            (kept,) = path.parent.glob(".tree.*.old/tree")
            assert read_tree(kept) == {"old"}
            outcomes.append("beside")
            continue
        (found,) = read_tree(path)
        outcomes.append("done" if status == 0 else found)
    assert found == "new"
    assert {"old", "new"} <= set(outcomes)
    assert outcomes.count("old") > 5
    assert outcomes.count("beside") == (0 if exchange else 1)
    atomic.remove_leftovers(tmp_path / "1")
    assert hidden(tmp_path / "1") == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_nothing(tmp_path, kind):
    for writer in (atomic.new_folder, atomic.new_file):
        with pytest.raises(kind), writer(tmp_path / "out"):
            raise kind("stop")
    with pytest.raises(kind), atomic.new_folder(tmp_path / "out"):
        raise kind("stop")
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused(tmp_path):
    write_tree(tmp_path / "out", "old")
    with pytest.raises(UserError, match="exists already"), atomic.new_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"), atomic.new_folder(tmp_path / "link"):
        pytest.fail("the block must not run")
    with pytest.raises(UserError, match="exists already"), atomic.new_folder(tmp_path / "late"):
        (tmp_path / "late").mkdir()  # somebody else was faster
    assert read_tree(tmp_path / "out") == {"old"}
    assert hidden(tmp_path) == []


def test_a_linked_output_stays_a_link(tmp_path):
    write_tree(tmp_path / "big disk" / "out", "old")
    (tmp_path / "out").symlink_to(tmp_path / "big disk" / "out")
    write_tree(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert read_tree(tmp_path / "big disk" / "out") == {"new"}
    (tmp_path / "t.txt").symlink_to(tmp_path / "big disk" / "t.txt")
    atomic.write_text(tmp_path / "t.txt", "x")
    assert (tmp_path / "t.txt").is_symlink()
    assert (tmp_path / "big disk" / "t.txt").read_text() == "x"


def test_permissions_follow_the_umask(tmp_path):
    write_tree(tmp_path / "out", "x")
    atomic.write_text(tmp_path / "file", "x")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain file").touch()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain file").stat().st_mode


@pytest.mark.parametrize("how", ["python", "safetensors", "parquet"])
def test_full_disk_is_one_line(tmp_path, how):
    def fill(folder: Path) -> None:
        if how == "python":
            (folder / "x").write_bytes(bytes(100_000))
        elif how == "safetensors":
            save_file({"x": torch.zeros(25_000)}, folder / "x")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"x": list(range(50_000))}), folder / "x")

    def action() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # Python ignores SIGXFSZ: the write fails with EFBIG
        with atomic.new_folder(tmp_path / "out") as folder:
            fill(folder)

    status, text = forked(action)
    assert status == 0
    assert text.startswith(f"UserError: {tmp_path / 'out'}: no space left")
    assert "\n" not in text
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        for writer in (atomic.new_folder, atomic.new_file):
            with pytest.raises(UserError, match="is a file and not a folder"), writer(path):
                pytest.fail("the block must not run")
    with pytest.raises(UserError, match="another name"), atomic.new_folder(tmp_path / ("x" * 250)):
        pytest.fail("the block must not run")

    def refuse(name, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match="may write to"), atomic.new_folder(tmp_path / "new" / "out"):
        pytest.fail("the block must not run")


def test_errors_of_inputs_are_not_blamed_on_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "out", Path("out")):
        with pytest.raises(PermissionError), atomic.new_folder(path):
            raise PermissionError(13, "Permission denied", str(tmp_path / "scan.nii"))
        with pytest.raises(FileNotFoundError), atomic.new_folder(path):
            Path("absent.nii").read_bytes()
    with pytest.raises(UserError, match="may write to"), atomic.new_folder(tmp_path / "out") as folder:
        raise PermissionError(13, "Permission denied", str(folder / "x"))


def test_a_disk_that_cannot_flush_folders_still_works(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_tree(tmp_path / "out", "x")
    assert read_tree(tmp_path / "out") == {"x"}


def test_everything_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    log = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (log.append(Path(os.readlink(f"/proc/self/fd/{d}")).name), fsync(d))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (log.append("rename"), replace(a, b))[1])
    write_tree(tmp_path / "out", "x")
    cut = log.index("rename")
    assert {"a", "b", "inner"} < set(log[:cut])
    assert log[cut:] == ["rename", tmp_path.name]
    log.clear()
    atomic.write_text(tmp_path / "file", "x")
    assert log[0].startswith(".file.")
    assert log[1:] == ["rename", tmp_path.name]


def test_remove_is_whole_or_gone(tmp_path):
    path = tmp_path / "tree"
    event, status = 0, 1
    while status != 0:
        event += 1
        write_tree(path, "old")

        def action(event=event):
            kill_at(event, EVENTS)
            atomic.remove(path)

        status, _ = forked(action)
        assert not path.exists() or read_tree(path) == {"old"}
    assert not path.exists()
    assert event > 4
    atomic.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
