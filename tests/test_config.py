"""Recipes: every mistake is found before any data is read, and named with its place."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.config import describe, from_mapping, load, merge_flags, parse_yaml, to_mapping
from ssl4neuro.errors import UserError
from ssl4neuro.registry import Component


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    labels: tuple[str, ...] = ()
    limit: int | None = None
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate must not be negative")


@dataclass(frozen=True)
class Outer:
    parts: dict[str, Component]
    inner: Inner = field(default_factory=Inner)
    seed: int = 0


RECIPE = """
parts:
  cross: {name: infonce, temperature: 0.2}
  plain: vicreg
inner: {rate: 1e-3, labels: [network, state]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def test_yaml_becomes_dataclasses(recipe: Path) -> None:
    config = load(Outer, recipe)
    assert config.parts["cross"] == Component("infonce", {"temperature": 0.2})
    assert config.parts["plain"] == Component("vicreg")
    assert config.inner == Inner(rate=0.001, labels=("network", "state"))


def test_flags_override_and_reach_into_components(recipe: Path) -> None:
    config = load(
        Outer, recipe, ["--seed", "3", "--parts.cross.temperature=0.5", "--parts.plain.weight", "2", "--inner.limit", "null"]
    )
    assert config.seed == 3
    assert config.parts["cross"].options["temperature"] == 0.5
    assert config.parts["plain"] == Component("vicreg", {"weight": 2})
    assert config.inner.limit is None


def test_a_flag_can_remove_a_part(recipe: Path) -> None:
    assert set(load(Outer, recipe, ["--parts.plain", "null"]).parts) == {"cross"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inner.rat", "1"], r"tiny\.yaml\.inner\.rat: unknown key \(did you mean 'rate'\?\)"),
        (["--sede", "1"], r"tiny\.yaml\.sede: unknown key \(did you mean 'seed'\?\)"),
        (["--seed", "one"], r"tiny\.yaml\.seed: .*integer.*got 'one'"),
        (["--inner.rate", "-1"], r"tiny\.yaml\.inner: rate must not be negative"),
        (["--parts.cross", "[1]"], r"tiny\.yaml\.parts\.cross: expected a name"),
        (["--seed.deep", "1"], r"tiny\.yaml\.seed|--seed\.deep"),
        (["seed", "1"], r"seed: expected a flag"),
        (["--seed", "[1"], r"--seed: cannot read"),
    ],
)
def test_mistakes_are_named(recipe: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(Outer, recipe, flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "\x00", "!!python/object/apply:os.system ['true']"])
def test_files_that_are_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load(Outer, path)


def test_missing_file_and_missing_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        load(Outer, tmp_path / "none.yaml")
    with pytest.raises(UserError, match="'parts' is missing"):
        load(Outer, None)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b"]), st.builds(Component, st.sampled_from(["x", "y"]), st.just({"k": 1})), min_size=1
    ),
    st.floats(0, 10),
    st.none() | st.integers(),
    st.integers(),
)
def test_to_mapping_and_back(parts: dict[str, Component], rate: float, limit: int | None, seed: int) -> None:
    config = Outer(parts, Inner(rate, ("n",), limit, (seed,)), seed)
    assert from_mapping(Outer, to_mapping(config), "x") == config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: joint", {"on": "joint"}),
        ("[yes, no, off, true, False]", ["yes", "no", "off", True, False]),
        ("[1e-3, 1.5e3, 1., .5, -2, 2e5, 10]", [1e-3, 1500.0, 1.0, 0.5, -2, 2e5, 10]),
        ("[1e, e3, 1.2.3, '1e-3', truely]", ["1e", "e3", "1.2.3", "1e-3", "truely"]),
        ("[.inf, -.inf, null]", [float("inf"), -float("inf"), None]),
    ],
)
def test_words_and_numbers_are_read_as_in_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "labels", "sizes"),
    [("1,02", ("1", "02"), (1, 2)), ("[a, b]", ("a", "b"), ()), ("7", None, (7,)), ("a, b", ("a", "b"), ())],
)
def test_a_list_on_the_command_line_is_written_with_commas(
    text: str, labels: tuple[str, ...] | None, sizes: tuple[int, ...]
) -> None:
    if labels is not None:
        assert load(Outer, None, ["--parts.a", "x", "--inner.labels", text]).inner.labels == labels
    if sizes:
        assert load(Outer, None, ["--parts.a", "x", "--inner.sizes", text]).inner.sizes == sizes


def test_merge_keeps_what_it_does_not_name() -> None:
    values = {"a": {"b": 1, "c": 2}}
    merge_flags(values, ["--a.b", "5", "--flag"])
    assert values == {"a": {"b": 5, "c": 2}, "flag": True}


def test_describe_lists_nested_fields() -> None:
    text = "\n".join(describe(Outer))
    assert "--inner.rate: float = 0.1" in text
    assert "--seed: int = 0" in text
