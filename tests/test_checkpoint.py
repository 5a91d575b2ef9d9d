"""Promise 4: whatever happens to a checkpoint or its writer, the last good one loads, or one line says why not."""

import importlib.util
import json
import os
import resource
import shutil
import signal
import struct
import sys
import types
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from ssl4neuro import atomic, checkpoint
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Manifest, file_sha256

FLOATS = 3000
FILES = (*checkpoint.WEIGHTS, *checkpoint.TRAINING, checkpoint.HASHES)


def bench():
    """The benchmark's own code, so that both measure the same."""
    file = Path(__file__).parent / "benchmarks" / "bench_checkpoint_kills.py"
    spec = importlib.util.spec_from_file_location("bench_checkpoint_kills", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kills = bench()
is_whole = kills.is_whole


def save(run: Path, step: int, **more: object) -> Path:
    """A checkpoint whose every number is its step."""
    arguments = {
        "epoch": step // 10,
        "model": {"w": torch.full((FLOATS,), float(step))},
        "training": {"step": step, "moment": torch.full((FLOATS,), float(step))},
        "contract": kills.CONTRACT,
        "manifest": Manifest.of("d", [str(step)], [], salt="00"),
        "config": {"step": step},
        **more,
    }
    return checkpoint.save(run, step=step, **arguments)


def steps(run: Path) -> list[int]:
    return sorted(int(p.name[5:]) for p in (run / "checkpoints").iterdir() if p.name.startswith("step-"))


def forked(action) -> tuple[int, str]:
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


# --- what is saved comes back ---------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    tied = torch.randn(4, 4)
    model = {
        "a": tied,
        "b": tied,
        "t": tied.T,
        "part": tied[1:],
        "n": torch.tensor(3),
        "h": torch.randn(2).half(),
        "e": tied[:0],
    }
    manifest = Manifest.of("d", ["1", "2"], ["ab" * 32])
    config = {"lr": 0.1, "path": Path("x"), "shape": (1, 2), "n": np.float32(0.5)}
    path = save(tmp_path, 7, model=model, manifest=manifest, config=config, metric=0.25, training=None)
    assert path == tmp_path / "checkpoints" / "step-00000007"
    found = checkpoint.load(tmp_path)
    assert {k: v.tolist() for k, v in found.model.items()} == {k: v.tolist() for k, v in model.items()}
    assert {k: v.dtype for k, v in found.model.items()} == {k: v.dtype for k, v in model.items()}
    assert (found.step, found.epoch, found.metric, found.training, found.notes) == (7, 0, 0.25, None, [])
    assert found.manifest == manifest
    assert found.contract == kills.CONTRACT
    assert found.config == {"lr": 0.1, "path": "x", "shape": [1, 2], "n": 0.5}
    assert found.checkpoint_sha256 == file_sha256(path / "model.safetensors")
    assert {p.name for p in path.iterdir()} == {*checkpoint.WEIGHTS, checkpoint.HASHES}


def test_equal_weights_are_the_same_encoder(tmp_path):
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 1, manifest=Manifest.of("other", ["x"], []), config={}, training=None)
    save(tmp_path / "c", 2)
    a, b, c = (checkpoint.load(tmp_path / name).checkpoint_sha256 for name in "abc")
    assert a == b != c


def test_training_state_is_read_on_request_only(tmp_path):
    save(tmp_path, 3)
    assert checkpoint.load(tmp_path).training is None
    assert is_whole(checkpoint.load(tmp_path, training=True))


def test_a_checkpoint_folder_loads_as_well_as_its_run(tmp_path, monkeypatch):
    path = save(tmp_path, 3)
    for where in (path, tmp_path / "checkpoints", tmp_path):
        assert checkpoint.load(where).step == 3
    moved = tmp_path / "published"
    shutil.copytree(path, moved)
    assert checkpoint.load(moved).step == 3
    monkeypatch.chdir(path)
    assert checkpoint.load(Path(".")).step == 3


def test_pruning_keeps_the_latest_and_the_best(tmp_path):
    for step in (10, 20, 30, 40):
        save(tmp_path, step, best=step == 10)
    assert steps(tmp_path) == [10, 30, 40]
    assert checkpoint.load(tmp_path, "best").step == 10
    save(tmp_path, 50, best=True, keep=1)
    assert steps(tmp_path) == [50]
    assert checkpoint.load(tmp_path, 50).step == 50
    with pytest.raises(UserError, match="no checkpoint of step 10; there are 50"):
        checkpoint.load(tmp_path, 10)


def test_last_is_the_last_written_not_the_highest_step(tmp_path):
    for step in (100, 200):
        save(tmp_path, step, keep=5)
    save(tmp_path, 150, keep=5)  # resumed from 100
    assert checkpoint.load(tmp_path).step == 150
    save(tmp_path, 160)
    assert steps(tmp_path) == [150, 160]  # what was abandoned goes first


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 5)
    save(tmp_path, 5, config={"step": "new"}, best=True)
    found = checkpoint.load(tmp_path, "best")
    assert (found.config, found.notes) == ({"step": "new"}, [])
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"step-00000005", "best.json"}


def test_best_before_any_validation_is_the_last_and_says_so(tmp_path):
    save(tmp_path, 5)
    found = checkpoint.load(tmp_path, "best")
    assert found.step == 5
    assert "using the last" in found.notes[0]


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    save(tmp_path, 1)
    for bad, kind in (
        ({"training": {"x": object()}}, TypeError),
        ({"contract": {}}, UserError),
        ({"config": {"f": print}}, TypeError),
    ):
        with pytest.raises(kind):
            save(tmp_path, 2, **bad)
    with pytest.raises(ValueError):
        save(tmp_path, 2, keep=0)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


# --- kills ------------------------------------------------------------------------------------------------------------


def test_kills_at_random_moments(tmp_path):
    good, struck = kills.kill_many(tmp_path, kills=5, floats=500_000, longest_s=0.1, seed=0)
    assert good == 5
    assert struck >= 1  # or this would test nothing


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


def kill_at(event: int, inside: Path) -> None:
    """The `event`-th time that this process opens, makes, renames or deletes something below `inside` is its end."""
    count = 0

    def hook(name: str, arguments: tuple) -> None:
        nonlocal count
        if name in EVENTS and (name == "ctypes.dlopen" or str(inside) in str(arguments[0])):
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.mark.parametrize(
    ("before", "stride"), [([], 3), ([4, 5], 1), ([6], 2)], ids=["first", "with pruning", "same step again"]
)
def test_a_kill_at_any_moment(tmp_path, monkeypatch, before, stride):
    """Before every single (2nd, 3rd) file operation of a save; the next save then works and leaves nothing lying about."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # matters when the power fails, not to a kill; and is slow
    template = tmp_path / "template"
    for step in before:
        save(template, step, best=step == 4)
    template.mkdir(exist_ok=True)
    seen, event, status = [], 1 - stride, 1
    while status != 0:
        event += stride
        run = tmp_path / str(event)
        shutil.copytree(template, run)

        def action(event=event, run=run):
            kill_at(event, run)
            save(run, 6, best=True, keep=1, config={"step": 6, "again": True})

        status, text = forked(action)
        if status == 0:
            assert text == "no exception"
        if not before and not any((run / "checkpoints").glob("step-*")):
            with pytest.raises(UserError, match="no "):  # no checkpoint yet, or not even a folder; none that is broken
                checkpoint.load(run)
            seen.append(None)
        else:
            found = checkpoint.load(run, training=True)
            assert is_whole(found)
            assert found.step == 6 or found.step == before[-1]
            best = checkpoint.load(run, "best")
            assert best.step in (4, 6) or before in ([], [6])
            seen.append(bool(found.config.get("again")))
        if len(seen) % 8 == 0 or status == 0:
            save(run, 7, keep=1)
            assert checkpoint.load(run).step == 7
            assert not [p for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
        shutil.rmtree(run)
    assert seen[-1] is True
    assert seen[0] is (False if before else None)
    assert sorted(seen, key=lambda s: s is True) == seen  # first the old state, from one moment on the new one
    assert event > 20


# --- damage -----------------------------------------------------------------------------------------------------------


def damaged_copies(run: Path, at: Path):
    """(name of the file, copy of the run in which the latest checkpoint's file is damaged)."""
    rng = np.random.default_rng(0)
    for name in FILES:
        size = (run / at / name).stat().st_size
        flips = [("flip", int(p)) for p in {0, size - 1, size // 2, *rng.integers(0, size, 8)}]
        for kind, where in [
            *flips,
            ("cut", 0),
            ("cut", size // 2),
            ("cut", size - 1),
            ("delete", 0),
            ("grow", 0),
            ("folder", 0),
        ]:
            copy = run.parent / "damaged"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run, copy)
            file = copy / at / name
            content = bytearray(file.read_bytes())
            if kind == "flip":
                content[where] ^= 1 << int(rng.integers(8))
            file.unlink()
            if kind == "folder":
                file.mkdir()
            elif kind != "delete":
                file.write_bytes({"flip": content, "cut": content[:where], "grow": content + b"x"}[kind])
            yield name, kind, copy


def test_any_damage_falls_back_to_the_last_good_one_and_says_so(tmp_path):
    run = tmp_path / "run"
    save(run, 1)
    latest = save(run, 2).relative_to(run)
    for name, kind, copy in damaged_copies(run, latest):
        found = checkpoint.load(copy, training=True)
        if name == checkpoint.HASHES and found.step == 2:  # a space that became another one changes nothing
            assert kind in ("flip", "grow", "cut")  # as is the newline at the end
            assert is_whole(found)
            continue
        assert found.step == 1, (name, kind)
        assert found.training["step"] == 1
        assert len(found.notes) == 1
        assert latest.name in found.notes[0]
        assert "using step-00000001 instead" in found.notes[0]
        assert name in found.notes[0] or name == checkpoint.HASHES
        with pytest.raises(UserError, match=latest.name) as caught:
            checkpoint.load(copy / latest)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=latest.name):
            checkpoint.load(copy, 2)


def test_no_flip_in_the_list_of_hashes_changes_what_is_loaded(tmp_path):
    file = save(tmp_path, 1) / checkpoint.HASHES
    content = file.read_bytes()
    good = checkpoint.load(tmp_path, training=True)
    loaded = 0
    for position in range(0, len(content), 7):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            found = checkpoint.load(tmp_path, training=True)
        except UserError:
            continue
        loaded += 1
        assert is_whole(found)
        assert found.checkpoint_sha256 == good.checkpoint_sha256
    assert loaded < len(content) / 7 / 4


def test_nothing_good_left_names_the_latest_file(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step) / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"step-00000002/model\.safetensors: cut short") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_best_falls_back_to_the_last(tmp_path):
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    (tmp_path / "checkpoints/step-00000001/config.json").unlink()
    found = checkpoint.load(tmp_path, "best")
    assert found.step == 2
    assert "config.json: missing" in found.notes[0]
    for content in ("{", "[]", '{"step": "x"}', '{"step": 99}', '{"step": true}'):
        (tmp_path / "checkpoints/best.json").write_text(content)
        found = checkpoint.load(tmp_path, "best")
        assert found.step == 2
        assert len(found.notes) == 1
    save(tmp_path, 3)
    assert steps(tmp_path) == [2, 3]


def test_a_damaged_order_is_noticed_and_pruned(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "checkpoints/step-00000001/state.json").write_text("{}")
    found = checkpoint.load(tmp_path)
    assert found.step == 2
    assert "step-00000001/state.json" in found.notes[0]
    save(tmp_path, 3)
    assert steps(tmp_path) == [2, 3]


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")], ids=["absent", "empty", "file"]
)
def test_no_run(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(UserError, match=r"run: no ") as caught:
        checkpoint.load(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_partial_folders_are_ignored_and_cleaned(tmp_path):
    save(tmp_path, 1)
    for name in (".step-00000009.abc.partial", ".step-00000001.x.old"):
        shutil.copytree(tmp_path / "checkpoints/step-00000001", tmp_path / "checkpoints" / name)
    (tmp_path / "checkpoints/.best.json.y.partial").write_text("{")
    assert checkpoint.load(tmp_path).notes == []
    save(tmp_path, 2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]


# --- full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [100, 4000, 20_000], ids=["records", "weights", "training"])
def test_full_disk(tmp_path, limit):
    save(tmp_path, 1)
    before = sorted(p.name for p in (tmp_path / "checkpoints").rglob("*"))

    def action() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        model = {"w": torch.zeros(1 if limit == 20_000 else FLOATS if limit == 4000 else 1)}
        save(tmp_path, 2, model=model, training={"moment": torch.zeros(10_000)} if limit == 20_000 else None)

    status, text = forked(action)
    assert status == 0
    assert text.startswith(f"UserError: {tmp_path / 'checkpoints/step-00000002'}: no space left")
    assert "\n" not in text
    assert sorted(p.name for p in (tmp_path / "checkpoints").rglob("*")) == before
    assert is_whole(checkpoint.load(tmp_path, training=True))


# --- hostile ----------------------------------------------------------------------------------------------------------


def forge(path: Path, **contents: bytes) -> None:
    """Replace files of a checkpoint and make the hashes fit, as an attacker would."""
    record = json.loads((path / checkpoint.HASHES).read_text())
    for name, content in contents.items():
        file = path / name.replace("__", ".")
        file.write_bytes(content)
        record["files"][file.name] = {"sha256": file_sha256(file), "bytes": len(content)}
    (path / checkpoint.HASHES).write_text(json.dumps(record))


def header(text: str, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode() + data


TENSOR = '{"w": {"dtype": "F32", "shape": %s, "data_offsets": %s}}'


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x00" * 7,
        header("{}", 1 << 62),
        header("{}", 1 << 20),
        header("[" * 10000),
        header("{"),
        header("[1]"),
        header(TENSOR % ("[1073741824, 1073741824]", "[0, 4]"), data=bytes(4)),
        header(TENSOR % ("[4]", "[0, 4]"), data=bytes(4)),
        header(TENSOR % ("[1]", "[0, 1099511627776]"), data=bytes(4)),
        header(TENSOR % ("[1]", "[-4, 0]"), data=bytes(4)),
        header(TENSOR.replace("F32", "PY") % ("[1]", "[0, 4]"), data=bytes(4)),
        b"\x80\x04\x95cposix\nsystem\n.",
    ],
)
def test_hostile_weights(tmp_path, weights):
    path = save(tmp_path, 1)
    forge(path, model__safetensors=weights)
    with pytest.raises(UserError, match=r"model\.safetensors: not valid safetensors") as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)
    forge(path, model__safetensors=header(TENSOR % ("[1]", "[0, 4]"), data=bytes(4)), training__safetensors=weights)
    with pytest.raises(UserError, match=r"training\.safetensors: not valid safetensors"):
        checkpoint.load(tmp_path, training=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [("training__json", c) for c in (b"{}", b'{"tensor": "/etc/x"}', b"[" * 100_000, b"1" * 10_000, b'{"x": 1}', b"\xff")]
    + [("state__json", c) for c in (b"[]", b"{}", b'{"step": 1}', b'{"step": "1", "epoch": 1, "metric": null, "order": 1}')]
    + [("contract__json", c) for c in (b"{}", b"[]", b'{"map": {"kind": "volume", "shape": [1, 2], "affine": 3}}')]
    + [("manifest__json", c) for c in (b"{}", b'{"format": "ssl4neuro manifest", "version": 1}', b"null")]
    + [("config__json", c) for c in (b"[]", b"nul", b"")],
)  # fmt: skip
def test_hostile_records(tmp_path, name, content):
    forge(save(tmp_path, 1), **{name: content})
    with pytest.raises(UserError, match=name.replace("__", r"\.")) as caught:
        checkpoint.load(tmp_path, training=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../outside", "/etc/hostname", "extra.py", "sub/x.json", "training.json\0"])
def test_files_that_do_not_belong_there_are_not_touched(tmp_path, name):
    path = save(tmp_path, 1)
    (tmp_path / "outside").write_text("x")
    record = json.loads((path / checkpoint.HASHES).read_text())
    record["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (path / checkpoint.HASHES).write_text(json.dumps(record))
    with pytest.raises(UserError, match="do not belong there"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": []},
        {"files": {}},
        {"format": "x"},
        {"version": 99},
        {"files": dict.fromkeys(checkpoint.WEIGHTS, 1)},
    ],
)
def test_hostile_lists(tmp_path, change):
    path = save(tmp_path, 1)
    record = json.loads((path / checkpoint.HASHES).read_text())
    (path / checkpoint.HASHES).write_text(json.dumps({**record, **change}))
    with pytest.raises(UserError, match="step-00000001"):
        checkpoint.load(tmp_path)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path):
    path = save(tmp_path, 1)
    for name in ("model.safetensors", checkpoint.HASHES):
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(UserError, match=f"{name}: missing"):
            checkpoint.load(tmp_path)


# --- into a model -----------------------------------------------------------------------------------------------------


def test_load_into_names_the_first_mismatches():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    twin = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    checkpoint.load_into(twin, model.state_dict(), "RUN")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    state = {**model.state_dict(), "0.weight": torch.zeros(5, 3), "x": torch.zeros(1)}
    del state["1.bias"]
    untouched = {k: v.clone() for k, v in twin.state_dict().items()}
    with pytest.raises(UserError) as caught:
        checkpoint.load_into(twin, state, "RUN")
    text = str(caught.value)
    for part in ("RUN: ", "0.weight is 5×3, the model has 2×3", "missing: 1.bias", "not in the model: x"):
        assert part in text
    assert "\n" not in text
    assert all(torch.equal(v, untouched[k]) for k, v in twin.state_dict().items())


def test_long_lists_are_cut():
    with pytest.raises(UserError, match="and 7 more"):
        checkpoint.load_into(nn.Sequential(*[nn.Linear(1, 1) for _ in range(5)]), {}, "RUN")


def test_state_of_a_wrapped_model_has_the_bare_names(tmp_path):
    accelerator = Accelerator(cpu=True)
    bare, inner = nn.Sequential(nn.Linear(3, 2)), nn.Module()
    names = set(bare.state_dict())
    inner._orig_mod = bare[0]  # what torch.compile(bare[0]) looks like
    bare[0] = inner
    assert set(bare.state_dict()) != names
    state = checkpoint.state_of(accelerator, accelerator.prepare(bare))
    assert set(state) == names
    arguments = {"epoch": 0, "model": state, "contract": kills.CONTRACT, "manifest": Manifest(), "config": {}}
    assert checkpoint.save_on_main(accelerator, tmp_path, step=1, **arguments) == tmp_path / "checkpoints/step-00000001"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file and not a folder"):
        checkpoint.save_on_main(accelerator, tmp_path / "file", step=1, **arguments)


@pytest.mark.parametrize("main", [True, False])
def test_a_failing_main_process_does_not_leave_the_others_waiting(tmp_path, monkeypatch, main):
    """Each side of the exchange: what the main process sends, and what the others do with it."""
    sent = []

    def broadcast(objects: list) -> list:
        sent.extend(objects)
        return objects if main else ["run: no space left"]

    monkeypatch.setattr(accelerate.utils, "broadcast_object_list", broadcast)
    accelerator = types.SimpleNamespace(is_main_process=main, num_processes=2)
    (tmp_path / "file").write_text("x")
    arguments = {"epoch": 0, "model": {}, "contract": kills.CONTRACT, "manifest": Manifest(), "config": {}}
    with pytest.raises(UserError, match="not a folder" if main else "no space left"):
        checkpoint.save_on_main(accelerator, tmp_path / "file", step=1, **arguments)
    assert len(sent) == 1
    assert (sent[0] is not None) == main


def test_the_test_would_see_a_save_that_is_not_atomic(tmp_path, monkeypatch):
    """The harness of the kill tests against a writer that writes in place: it has to find broken checkpoints."""

    def in_place(temporary: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir()):
            shutil.copy(file, target / file.name)

    monkeypatch.setattr(atomic, "_put", in_place)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    save(tmp_path, 6)
    broken, event, status = 0, 0, 1
    while status != 0:
        event += 4

        def action(event=event):
            kill_at(event, tmp_path)
            save(tmp_path, 6, config={"step": 6, "again": event})

        status, _ = forked(action)
        try:
            broken += bool(checkpoint.load(tmp_path).notes)
        except UserError:
            broken += 1
    assert broken > 1
