"""Recipes: YAML plus `--dotted.flag value` overrides, turned into nested frozen dataclasses.

A recipe holds only what differs from the defaults. Flags are merged into the mapping before it is read, so a mistake on the
command line and one in the file get the same one-line error: `tiny.yaml.objectives.cross.temprature: unknown key (did you
mean 'temperature'?)`.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ssl4neuro.errors import UserError
from ssl4neuro.registry import Component, suggest

Config = TypeVar("Config")


def load(cls: type[Config], recipe: Path | None, flags: Sequence[str] = ()) -> Config:
    """Read a YAML recipe and apply flags such as `--optimiser.rate 1e-3` or `--optimiser.rate=1e-3`.

    Raises:
        UserError: the file cannot be read, or a key or value does not fit `cls`.
    """
    where = recipe.name if recipe else "options"
    values = read_yaml(recipe) if recipe else {}
    merge_flags(values, flags)
    return from_mapping(cls, values, where)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; nothing in the file can run code."""
    import yaml

    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such recipe; `ssl4neuro recipes list` shows the shipped ones") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({problem})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, not a {type(values).__name__}")
    return values


def parse_yaml(text: str) -> Any:
    """YAML with the truth values and numbers of version 1.2: `on` is a word, `1e-3` a number. Nothing in it can run code."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    kept = ("bool", "float")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in kept]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", _Whole(re.compile(r"true|True|TRUE|false|False|FALSE")), list("tTfF")
    )
    number = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _Whole(number), list("-+0123456789."))
    return yaml.load(text, Loader)  # noqa: S506 (a SafeLoader)


class _Whole:
    """A pattern that has to match the whole word."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern

    def match(self, text: str) -> Any:
        return self.pattern.fullmatch(text)


def merge_flags(values: dict[str, Any], flags: Sequence[str]) -> None:
    """Write `--a.b value` pairs into the nested mapping; values are read as YAML, a flag without a value means true."""
    import yaml

    words = list(flags)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise UserError(f"{word}: expected a flag such as --seed 1")
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise UserError(f"--{key}: cannot read the value '{text}'") from error
        target = values
        *parents, last = key.replace("-", "_").split(".")
        for parent in parents:
            inner = target.get(parent)
            if isinstance(inner, str):  # a component named by a bare word gets options
                inner = {"name": inner}
            if inner is None:
                inner = {}
            if not isinstance(inner, dict):
                raise UserError(f"--{key}: '{parent}' holds a single value, it has no '{last}'")
            target[parent] = inner
            target = inner
        target[last] = value


def from_mapping(cls: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build a dataclass from a mapping, checking every key and leaf.

    Raises:
        UserError: an unknown key (with the closest known one) or a value of the wrong type, with its full path.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}.{key}: unknown key{suggest(str(key), known)}")
        arguments[key] = _convert(hints[key], value, f"{where}.{key}")
    for name, entry in known.items():
        if name not in arguments and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: the key '{name}' is missing")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def to_mapping(value: Any) -> Any:
    """The plain form of a configuration, ready for YAML or JSON; `from_mapping` reads it back."""
    if isinstance(value, Component):
        return {"name": value.name, **{key: to_mapping(option) for key, option in value.options.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_mapping(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        structured = [a for a in arguments if a is Component or dataclasses.is_dataclass(a)]
        if structured:
            return _convert(structured[0], value, where)
    if hint is Component:
        return _component(value, where)
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    if origin is dict and (arguments[1] is Component or dataclasses.is_dataclass(arguments[1])):
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected a mapping of names, got {value!r}")
        return {str(key): _convert(arguments[1], inner, f"{where}.{key}") for key, inner in value.items() if inner is not None}
    return _leaf(hint, value, where)


def _component(value: Any, where: str) -> Component:
    if isinstance(value, str):
        return Component(value)
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Component(value["name"], {str(k): v for k, v in value.items() if k != "name"})
    raise UserError(f"{where}: expected a name, or a mapping with 'name' and options, got {value!r}")


def _leaf(hint: Any, value: Any, where: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    if typing.get_origin(hint) is tuple:  # on the command line a list is `2,5,10`, and one entry just `2`
        words = typing.get_args(hint)[0] is str
        if isinstance(value, str) and words and value:
            value = [part.strip() for part in value.split(",")]
        elif isinstance(value, str) and "," in value:
            value = parse_yaml(f"[{value}]")
        elif isinstance(value, int | float) and not isinstance(value, bool) and not words:
            value = [value]
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UserError(f"{where}: {problem['msg'][0].lower() + problem['msg'][1:]}, got {problem['input']!r}") from error


def describe(cls: type, prefix: str = "--") -> list[str]:
    """One line per field: flag, type and default."""
    lines = []
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[entry.name]) and hints[entry.name] is not Component:
            lines += describe(hints[entry.name], f"{prefix}{entry.name}.")
            continue
        name = getattr(hints[entry.name], "__name__", "")
        kind = name if name in {"int", "float", "str", "bool"} else str(hints[entry.name])
        for module in ("typing.", "ssl4neuro.registry.", "ssl4neuro.model."):
            kind = kind.replace(module, "")
        default = "" if entry.default is dataclasses.MISSING else f" = {entry.default!r}"
        lines.append(f"  {prefix}{entry.name}: {kind}{default}")
    return lines
