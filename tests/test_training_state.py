"""Nested state survives storage bit for bit, and nothing stored can do more than be read."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from ssl4neuro.training_state import Damaged, flatten, unflatten


def through_files(state):
    tensors, tree = flatten(state)
    return unflatten(load(save(tensors)), json.loads(json.dumps(tree)))


def same(a, b) -> bool:
    """Equal in type, order and bits; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        equal = type(b) is torch.Tensor and a.dtype == b.dtype and a.shape == b.shape
        return equal and a.detach().contiguous().view(-1).numpy().tobytes() == b.view(-1).numpy().tobytes()
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list if isinstance(a, list) else tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and (a == b or (math.isnan(a) and math.isnan(b))) and math.copysign(1, a) == math.copysign(1, b)
    return type(a) is type(b) and a == b


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([math.nan, -0.0])
    | st.text()
    | st.binary()
)
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(states)
@settings(max_examples=150, deadline=None)
def test_any_nested_state(state):
    assert same(state, through_files(state))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bool, torch.uint8, torch.int64, torch.complex64]
)
def test_tensors(dtype):
    base = (torch.arange(24) % 7).reshape(2, 3, 4).to(dtype)
    for tensor in (base, base.transpose(0, 2), base[0, 0, 0], base[:0], base.clone().requires_grad_(dtype == torch.float32)):
        assert same(tensor, through_files({"t": tensor})["t"])
    state = {"a": base, "b": base, 0: base[0], "0": base[1]}  # one memory, and keys of one spelling
    assert same(state, through_files(state))


def test_bfloat16_and_complex128_and_conjugates():
    b = torch.randn(5, dtype=torch.bfloat16)
    assert torch.equal(through_files(b).view(torch.int16), b.view(torch.int16))
    c = torch.randn(3, dtype=torch.complex128)
    assert same(c, through_files(c))
    assert torch.equal(through_files(c.conj()), c.conj())


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8", ">f4", "<f2", "<c16", "?", "<i8"])
def test_arrays(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, array.T, array[:0], np.array(array[0, 1]), array[0, 1]):
        assert same(value, through_files([value])[0])


def optimiser_states():
    torch.manual_seed(0)
    for make in (
        lambda p: torch.optim.AdamW(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.LBFGS(p, max_iter=3, history_size=3),
    ):
        model = torch.nn.Linear(4, 3)
        optimiser = make(model.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)

        def closure(model=model, optimiser=optimiser):
            optimiser.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        schedule.step()
        yield make, model, optimiser, schedule, closure


@pytest.mark.parametrize("case", optimiser_states(), ids=["adamw", "sgd", "lbfgs"])
def test_optimisers_continue_bit_identically(case):
    make, model, optimiser, schedule, closure = case
    state = {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(), "weights": dict(model.state_dict())}
    restored = through_files(state)
    assert same(state, restored)
    twin = torch.nn.Linear(4, 3)
    twin.load_state_dict(restored["weights"])
    other = make(twin.parameters())
    other.load_state_dict(restored["optimiser"])
    optimiser.step(closure)
    other.step(lambda: closure(twin, other))
    assert same(dict(model.state_dict()), dict(twin.state_dict()))


def test_random_number_generators_continue():
    legacy = np.random  # also what libraries draw from
    random.seed(1)
    legacy.seed(2)
    torch.manual_seed(3)
    own = legacy.default_rng(4)
    random.gauss(0, 1)  # leaves a second number behind, which is part of the state
    legacy.standard_normal()
    state = {
        "python": random.getstate(),
        "numpy": legacy.get_state(),
        "torch": torch.get_rng_state(),
        "own": own.bit_generator.state,
    }
    expected = [random.gauss(0, 1), legacy.standard_normal(), float(torch.rand(())), own.random()]
    restored = through_files(state)
    random.setstate(restored["python"])
    legacy.set_state(restored["numpy"])
    torch.set_rng_state(restored["torch"])
    own.bit_generator.state = restored["own"]
    assert [random.gauss(0, 1), legacy.standard_normal(), float(torch.rand(())), own.random()] == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), np.array([None]), torch.zeros(2).to_sparse(), print])
def test_what_would_need_pickle_is_refused_with_its_place(value):
    with pytest.raises(TypeError, match="/optimiser/0"):
        flatten({"optimiser": [value]})


def test_cycles_end():
    loop: list = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested"):
        flatten(loop)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"tensor": "absent"},
        {"tensor": 3},
        {"import": "os"},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"dict": {"a": 1}},
        {"tuple": 3},
        {"float": "1e3"},
        {"bytes": "?"},
        {"bytes": 3},
        {"array": "t", "dtype": "O", "shape": [1]},
        {"array": "t", "dtype": "<f4", "shape": [10**18]},
        {"array": "t", "dtype": "<f8", "shape": [2]},
        {"array": "t"},
        {"array": "t", "dtype": "<f4", "shape": "x"},
        {"scalar": "e", "dtype": "<f4"},
        {"complex": "t"},
        {"array": "t", "dtype": "f4,f4", "shape": [1]},
        {"array": "t", "dtype": "object", "shape": [1]},
    ],
)
def test_hostile_trees(tree):
    tensors = {"t": torch.zeros(5, dtype=torch.uint8), "e": torch.zeros(0, dtype=torch.uint8)}
    with pytest.raises(Damaged):
        unflatten(tensors, {"dict": [["a", tree]]})


def test_deep_nesting_is_damage():
    tree: list = []
    for _ in range(500):
        tree = [tree]
    with pytest.raises(Damaged, match="deep"):
        unflatten({}, tree)
