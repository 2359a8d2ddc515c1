"""Look up methods and backbones by name, and build them from a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crossvox.batch import CropRule, Task
from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from crossvox.utils.registry import Registry

if TYPE_CHECKING:
    from crossvox.config.run_config import RunConfig
    from crossvox.methods.base import Method

CLASSES: dict[str, Registry] = {"method": METHODS, "backbone": BACKBONES}
"""Part of a configuration → name → class."""

NOT_OPTIONS = frozenset({"task", "backbone", "pretrained"})
"""Constructor arguments that are not user options."""

PARTS_OF = {
    "method": ("name", "summary", "needs", "forward", "predict", "roles"),
    "backbone": ("encoder", "decoder"),
}
"""Part of a configuration → attributes that each of its classes has."""


def declared(part: str, name: Any) -> Any:
    """Return what the class that a `method` or `backbone` names declares; see `Registry.declared`.

    Raises:
        UsageError: no class has this name; the message lists those there are.
    """
    return CLASSES[part].declared(_known(part, name))


def find_class(part: str, name: Any) -> Any:
    """Return the class that a `method` or `backbone` names; as `declared`, but ready for use.

    Raises:
        UsageError: no class has this name, or a plug-in's class lacks what such a class has.
    """
    found = CLASSES[part][_known(part, name)]
    needed = PARTS_OF[part]
    if lacking := [attribute for attribute in needed if not hasattr(found, attribute)]:
        raise UsageError(
            f"{part} '{name}': {found.__name__} has no {', '.join(lacking)}; "
            "CONTRIBUTING.md shows one that works"
        )
    return found


def _known(part: str, name: Any) -> str:
    classes = CLASSES[part]
    if not isinstance(name, str) or name not in classes:
        raise UsageError(f"unknown {part} '{name}'; choose from {', '.join(classes)}")
    return name


def complete(part: str, given: Any) -> dict[str, Any]:
    """Return a `method` or `backbone` with the defaults of all options that were not given.

    >>> complete("backbone", {"name": "vnet", "width": 8})
    {'name': 'vnet', 'width': 8, ...}

    Args:
        part: "method" or "backbone".
        given: `{name, options …}`, or the name alone.

    Raises:
        UsageError: the name or an option is unknown.
    """
    if not isinstance(given, Mapping):
        given = {"name": given}
    name = given.get("name")
    parameters = inspect.signature(declared(part, name)).parameters
    known = {key: p.default for key, p in parameters.items() if key not in NOT_OPTIONS}
    if unknown := given.keys() - known.keys() - {"name"}:
        raise UsageError(
            f"{part} '{name}' has no option '{min(unknown)}'; "
            f"choose from {', '.join(known) or 'none'}"
        )
    defaults = {key: value for key, value in known.items() if value is not inspect.Parameter.empty}
    if bare := known.keys() - defaults.keys() - given.keys():
        raise UsageError(
            f"{part} '{name}': its option '{min(bare)}' has no default; give --{part}.{min(bare)}, "
            "or a default in its constructor"
        )
    return {**given, **defaults, **given}


def plug_ins(config: RunConfig) -> dict[str, dict[str, str]]:
    """Return part of a run → where its class comes from, of the classes that are plug-ins.

    >>> plug_ins(config)
    {'method': {'class': 'mypackage:Mine', 'distribution': 'mypackage 1.2'}}
    """
    origins = {part: CLASSES[part].origin(getattr(config, part)["name"]) for part in CLASSES}
    return {part: origin for part, origin in origins.items() if origin is not None}


def require_plug_ins(recorded: Mapping[str, Mapping[str, str]], where: object) -> None:
    """Raise `UsageError` if a plug-in of a run is not there.

    Args:
        recorded: as from `plug_ins`, when the run began.
        where: name of the run in messages.
    """
    for part, origin in recorded.items():
        try:
            CLASSES[part].declared(origin["class"])
        except UsageError as error:
            owner = origin["distribution"] or "no installed package; put its folder on PYTHONPATH"
            raise UsageError(
                f"{where}: its {part} {origin['class']} is not here; it came from {owner}"
            ) from error


def build_method(task: Task, config: RunConfig) -> Method:
    """Build the configured method over the configured backbone, with random weights.

    Published weights are not read here. The backbone only learns whether there are any.

    Raises:
        UsageError: an option is out of range or does not fit the task.
    """
    network = find_class("backbone", config.backbone["name"])
    method = find_class("method", config.method["name"])
    options = _options(config.backbone)
    if hasattr(network, "published"):
        options["pretrained"] = config.weights is not None
    try:
        return method(task, network(task, **options), **_options(config.method))
    except ValueError as error:
        raise UsageError(str(error)) from error


def crop_rule(backbone: Mapping[str, Any]) -> CropRule | None:
    """Return the crops that a backbone takes; None if the plan's strides decide.

    Raises:
        UsageError: with these options it takes none.
    """
    rule = getattr(find_class("backbone", backbone["name"]), "crop", None)
    try:
        return None if rule is None else rule(**_options(backbone))
    except ValueError as error:
        raise UsageError(str(error)) from error


def takes_weights(config: RunConfig) -> bool:
    """Return whether a run's networks can start from published weights of its backbone."""
    uses = declared("method", config.method["name"]).uses_backbone
    return uses and hasattr(declared("backbone", config.backbone["name"]), "published")


def trained_task(task: Task, config: RunConfig) -> Task:
    """Return a plan's task as a run trains it.

    Scans that the run misaligns are not registered. Those of a subject that are not registered are
    moved onto each other, if the method compares or fuses them (`sampling.align`).
    """
    registered = task.registered and not config.misalign
    needs = declared("method", config.method["name"]).needs
    aligned = config.sampling.align and bool(needs) and task.paired and not registered
    return replace(task, registered=registered, aligned=aligned)


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
