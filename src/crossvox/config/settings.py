"""Parse the settings of a run: a preset, then YAML files, then the command line."""

from __future__ import annotations

import inspect
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from crossvox.config.presets import COMPONENTS, load_preset, merge, with_method_options
from crossvox.config.registry import CLASSES, NOT_OPTIONS, declared
from crossvox.config.run_config import SECTIONS, RunConfig
from crossvox.errors import UsageError, suggest
from crossvox.utils.documents import read_yaml

FIELDS = tuple(RunConfig.__dataclass_fields__)
PLACES = {"data": "the dataset.json", "out": "run directory to make"}
"""The fields that have no default → their help."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run from one source, such as a YAML file or the command line.

    >>> Settings({"method": "sup", "fit.steps": 3}).values
    {'method': {'name': 'sup'}, 'fit': {'steps': 3}}

    Attributes:
        values: nested by section; a method or a backbone may be given by its name alone.
        source: the name of the source, for messages; empty = the command line.

    Raises:
        UsageError: a section is no mapping.
    """

    values: Mapping[str, Any]
    source: str = ""

    def __post_init__(self) -> None:
        dotted = {key: value for key, value in self.values.items() if "." in str(key)}
        values = {key: value for key, value in self.values.items() if key not in dotted}
        for key in (*COMPONENTS, *SECTIONS):
            section = values.get(key, {})
            if key in COMPONENTS and isinstance(section, str):
                values[key] = {"name": section}
            elif not isinstance(section, Mapping):
                raise UsageError(
                    f"{self.place(key)} is {section!r}; expected `key: value` lines below it"
                )
        for key, value in dotted.items():  # `fit.steps: 3`
            section, _, name = str(key).partition(".")
            inside = values.get(section, {})
            if not isinstance(inside, Mapping):
                raise UsageError(f"{self.place(section)} is {inside!r} beside {self.place(key)}")
            values[section] = {**inside, name: value}
        for key in COMPONENTS:
            if not isinstance(name := values.get(key, {}).get("name", ""), str):
                raise UsageError(f"{self.place(f'{key}.name')} is {name!r}; expected a name")
        if isinstance(values.get("labelled"), int | float):  # as YAML reads 2 and 0.1
            values["labelled"] = str(values["labelled"])
        object.__setattr__(self, "values", values)

    def place(self, key: str) -> str:
        """Return the name of a setting in messages."""
        return f"{self.source}: '{key}'" if self.source else f"--{key}"


def read_settings(path: Path) -> Settings:
    """Read the settings in a YAML file; raise `UsageError` if it cannot be read."""
    return Settings(read_yaml(path), str(path))


def parse_settings(*sources: Settings) -> dict[str, Any]:
    """Return all settings of a run, with their types; later sources override earlier ones.

    Below all sources lies the preset that they name. A source that names another method or
    backbone drops the options of the former one.

    >>> parse_settings(Settings({"method": "sup", "fit": {"steps": 100}}))["fit"]["lr"]
    0.003

    Returns:
        Nested values by the fields of `RunConfig`; `data` and `out` may be None.

    Raises:
        UsageError: a name, a key or a type is wrong; the message names the valid ones.
    """
    values = combine(sources)
    parser = ArgumentParser(exit_on_error=False)
    add_settings(parser, values)
    for source in sources:
        _check_source(source, values, parser)
    return parser.parse_object(values).as_dict()


def combine(sources: Iterable[Settings]) -> dict[str, Any]:
    """Merge settings over the preset that they name, "cpu" by default, without checking them."""
    # Only a preset may hold options by method; `_check_source` refuses the key elsewhere.
    given = [{k: v for k, v in source.values.items() if k != "methods"} for source in sources]
    named = [values["preset"] for values in given if values.get("preset")]
    merged = load_preset(named[-1] if named else "cpu")
    for values in given:
        merged = merge(merged, {**values, "preset": merged["preset"]})
    return with_method_options(merged)


def add_settings(
    parser: ArgumentParser, values: Mapping[str, Any], fields: Collection[str] = FIELDS
) -> None:
    """Add an option for every setting of a run, with the defaults of its preset.

    Args:
        parser: takes the options.
        values: settings that name preset, method and backbone, as from `combine`.
        fields: those of `RunConfig` that become options.
    """
    for name in [name for name in PLACES if name in fields]:
        parser.add_argument(f"--{name}", type=Path | None, help=PLACES[name])
    plain = set(fields) - {*PLACES, *CLASSES, *SECTIONS}
    parser.add_class_arguments(RunConfig, skip=set(FIELDS) - plain, as_group=False)
    for part in [name for name in CLASSES if name in fields]:
        name = values[part].get("name")
        kind = declared(part, name)
        group = parser.add_argument_group(f"{part} {name}: {_summary(kind)}")
        group.add_argument(f"--{part}.name", metavar="NAME",
                           help=f"short: --{part}; one of {', '.join(CLASSES[part])}")  # fmt: skip
        options = set(NOT_OPTIONS)
        group.add_class_arguments(kind, part, skip=options, as_group=False, fail_untyped=False)
    for name in [name for name in SECTIONS if name in fields]:
        group = parser.add_argument_group(f"{name}: {_summary(SECTIONS[name])}")
        group.add_class_arguments(SECTIONS[name], name, as_group=False)
    names = {part: {"name": values[part]["name"]} for part in CLASSES}
    shipped = with_method_options(merge(load_preset(values["preset"]), names))
    known = list(parser.get_defaults().keys())
    parser.set_defaults({key: value for key, value in _flatten(shipped) if key in known})


def _kept(source: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source's settings without the options of a method that a later source replaced."""
    kept = dict(source.values)
    for part in COMPONENTS:
        name = values[part]["name"]
        if kept.get(part, {}).get("name", name) != name:
            del kept[part]
    return kept


def _check_source(source: Settings, values: Mapping[str, Any], parser: ArgumentParser) -> None:
    """Refuse a source with an unknown setting or with a value of the wrong type."""
    kept = _kept(source, values)
    dashes = "" if source.source else "--"
    known = list(parser.get_defaults().keys())
    # The names below `weights` are the data set's modalities.
    for key, _ in _flatten({**kept, "weights": None}):
        if key not in known:
            near = suggest(dashes + key, [dashes + name for name in known])
            raise UsageError(f"{source.place(key)} is no option; {near}")
    for key, value in _flatten(kept):
        nested = value
        for name in reversed(key.split(".")):
            nested = {name: nested}
        try:
            parser.parse_object(nested, defaults=False)
        except ArgumentError:
            expected = _describe_type(_type_of(key, values))
            raise UsageError(f"{source.place(key)} is {value!r}; expected {expected}") from None


def _type_of(key: str, values: Mapping[str, Any]) -> Any:
    """Return the type of a setting."""
    section, _, name = key.partition(".")
    kind: type = SECTIONS.get(section, RunConfig)
    if section in COMPONENTS:
        kind = declared(section, values[section]["name"])
    elif section not in SECTIONS:
        name = section
    return inspect.signature(kind, eval_str=True).parameters[name].annotation


def _describe_type(hint: Any) -> str:
    """Return a type in the words of an error message."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe_type(part) for part in get_args(hint))
    if hint is types.NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0].rstrip(".")
