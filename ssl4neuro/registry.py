"""Build a part by name: `build(ENCODERS, Component("volume_resnet", {"preset": "small"}))`.

Each table is a plain dictionary in its own package. A name with a colon, `package.module:Class`, reaches a class that is
in no table, so a user's own encoder needs no change here. A class may carry `PRESETS: dict[str, dict]`; the option `preset`
picks one and the other options override it. Options are checked against the constructor's signature and converted to its
annotated types, so that a typing error in a recipe is found before any data is read.
"""

import difflib
import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssl4neuro.errors import UserError


@dataclass(frozen=True)
class Component:
    """A part named in a recipe: `{name: infonce, temperature: 0.1}`, or just `infonce`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def suggest(word: str, choices: typing.Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or the choices when nothing is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (choose from {', '.join(choices)})" if choices else ""


def find(table: Mapping[str, type], name: str, where: str) -> type:
    """The class that `name` stands for: a key of `table`, or `package.module:Class`."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{where}: cannot import '{name}' ({error}); is the package installed?") from error
    if name not in table:
        raise UserError(f"{where}: unknown name '{name}'{suggest(name, table)}")
    return table[name]


def resolve(table: Mapping[str, type], component: Component, where: str = "recipe") -> tuple[type, dict[str, Any]]:
    """Class and checked keyword arguments, preset merged in, without building it.

    Raises:
        UserError: unknown name, preset or option, or an option of the wrong type.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    cls = find(table, component.name, where)
    given = dict(component.options)
    preset = given.pop("preset", None)
    presets: dict[str, dict[str, Any]] = getattr(cls, "PRESETS", {})
    if preset is not None:
        if preset not in presets:
            raise UserError(f"{where}.preset: {component.name} has no preset '{preset}'{suggest(preset, presets)}")
        given = {**presets[preset], **given}
    signature = inspect.signature(cls)
    allowed = {k: p for k, p in signature.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    hints = typing.get_type_hints(vars(cls).get("__init__", cls.__init__))  # type: ignore[misc]
    options = {}
    for key, value in given.items():
        if key not in allowed:
            raise UserError(f"{where}.{key}: unknown option of {component.name}{suggest(key, allowed)}")
        try:
            adapter = TypeAdapter(hints.get(key, Any), config=ConfigDict(arbitrary_types_allowed=True))
            options[key] = adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
            raise UserError(f"{where}.{key}: {problem['msg']}, got {problem['input']!r}") from error
    missing = [k for k, p in allowed.items() if p.default is p.empty and k not in options]
    if missing:
        raise UserError(f"{where}: {component.name} needs the option '{missing[0]}'")
    return cls, options


def build(table: Mapping[str, type], component: Component, where: str = "recipe") -> Any:
    """The built part. `where` is the place in the recipe, for the message when it cannot be built."""
    cls, options = resolve(table, component, where)
    try:
        return cls(**options)
    except ValueError as error:
        raise UserError(f"{where}: {component.name}: {error}") from error
