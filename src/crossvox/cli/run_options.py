"""The options of a whole run: preset, then YAML files, then the command line; typed throughout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from crossvox.cli.parsing import check_keys, flatten, new_parser, parse, pick, to_json
from crossvox.config.presets import COMPONENTS, load_preset, merge, presets
from crossvox.config.registry import CLASSES, NOT_OPTIONS, find_class
from crossvox.config.run_config import SECTIONS, RunConfig
from crossvox.errors import UsageError
from crossvox.utils.documents import read_yaml

AddOptions = Callable[[ArgumentParser], None]


def parse_run(
    command: str,
    description: str,
    argv: list[str],
    add_options: AddOptions,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Parse the options of a command that configures a run.

    Args:
        command: its name, for the messages.
        description: for `--help`.
        argv: what follows the command.
        add_options: adds the command's own options to the parser.
        overrides: values that this command puts over the preset's.

    Returns:
        Nested dictionaries: the fields of `RunConfig` and the command's own options.

    Raises:
        UsageError: an unknown name, key or type, with the valid choices.
    """
    flags = {name: (f"--{name}", f"--{name}.name") for name in COMPONENTS}
    argv = _gather_weights(argv)
    found, rest = pick(argv, config=("--config",), preset=("--preset",), **flags)
    files = [(Path(name), _read(Path(name))) for name in found["config"]]
    given: dict[str, Any] = {}
    for _, values in files:
        given = merge(given, values)
    preset = [given.get("preset") or "cpu", *found["preset"]][-1]
    shipped = merge(load_preset(preset), overrides or {})
    chosen = merge(merge(shipped, given), {name: {} for name in COMPONENTS})
    for name in COMPONENTS:
        if found[name]:
            chosen = merge(chosen, {name: {"name": found[name][-1]}})
        find_class(name, chosen[name].get("name"))
    chosen["preset"] = preset
    names = {name: chosen[name]["name"] for name in COMPONENTS}
    parser = _run_parser(command, description, add_options, names)
    for path, values in files:
        check_keys(_own_keys(values, names), parser, path)
    parser.set_defaults(flatten(merge(shipped, {n: {"name": names[n]} for n in COMPONENTS})))
    values = parse(parser, ["--config", to_json(chosen), *rest])
    if isinstance(values.get("weights"), dict) and "joint" in values["method"]:
        # Modalities that start from a file each do not start in one network, unless asked to.
        asked = _own_keys(given, names).get("method", {})
        chosen["method"] = {**chosen["method"], "joint": asked.get("joint", 0)}
        values = parse(parser, ["--config", to_json(chosen), *rest])
    values.pop("config", None)
    return values


def run_config(values: dict[str, Any]) -> RunConfig:
    """The `RunConfig` among the parsed values of `parse_run`."""
    return RunConfig.from_dict({k: v for k, v in values.items() if k in _FIELDS})


def _run_parser(
    command: str, description: str, add_options: AddOptions, names: dict[str, str]
) -> ArgumentParser:
    parser = new_parser(command, description)
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("--preset", type=str, help=f"starting values: {', '.join(presets())}")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and augmentation")
    add_options(parser)
    for name, registry in CLASSES.items():
        kind = registry[names[name]]
        group = parser.add_argument_group(f"{name} {names[name]}: {_first_line(kind)}")
        group.add_argument(f"--{name}.name", type=str, metavar="NAME",
                           help=f"short: --{name}; one of {', '.join(registry)}")  # fmt: skip
        group.add_class_arguments(
            kind, name, skip=set(NOT_OPTIONS), as_group=False, fail_untyped=False
        )
    for name, kind in SECTIONS.items():
        group = parser.add_argument_group(f"{name}: {_first_line(kind)}")
        group.add_class_arguments(kind, name, as_group=False)
    return parser


def _read(path: Path) -> dict[str, Any]:
    """A YAML file whose sections are mappings, a plugin's short form `method: cmc` written out."""
    values = read_yaml(path)
    for key in (*COMPONENTS, *SECTIONS):
        section = values.get(key)
        if key in COMPONENTS and isinstance(section, str):
            values[key] = {"name": section}
        elif key in values and not isinstance(section, dict):
            raise UsageError(
                f"{path}: '{key}' is {section!r}; expected `key: value` lines below it"
            )
    return values


def _gather_weights(argv: list[str]) -> list[str]:
    """`--weights.MODALITY FILE` options as one `--weights`: the parser knows no modalities."""
    rest: list[str] = []
    files: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if not option.startswith("--weights."):
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("--"):
            raise UsageError(f"{option} is without a file; expected {option} FILE")
        files[option.removeprefix("--weights.")] = value
    if files and any(word.split("=", 1)[0] == "--weights" for word in rest):
        raise UsageError("give either --weights FILE for all modalities or one for each of them")
    return [*rest, "--weights", json.dumps(files)] if files else rest


def _own_keys(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A file's values without the options of a method that the command line replaced.

    Nor the names of modalities below `weights`, which the data set and no option decides on.
    """
    own = {}
    for key, value in values.items():
        if key in COMPONENTS:
            value = value if value.get("name", names[key]) == names[key] else {}
        own[key] = None if key == "weights" else value
    return own


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0].rstrip(".")


_FIELDS = set(RunConfig.__dataclass_fields__)
