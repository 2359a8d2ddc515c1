"""The rules of the manifest's format, checked before any scan is opened."""

from __future__ import annotations

import difflib
import functools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

KINDS = ("ct", "mr", "pet", "spect", "us", "other")
"""Kinds of modality. A ct holds Hounsfield units; all others are scaled by mean and deviation."""


@functools.cache
def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of `dataset.json`."""
    text = (
        resources.files("crossvox.data.manifest").joinpath("dataset.schema.json").read_text("utf-8")
    )
    return json.loads(text)


def structural_problems(content: Any) -> list[str]:
    """List every rule of the format that a manifest's JSON content breaks, one line each.

    The schema's rules come first, then those that a schema cannot state.
    """
    errors = sorted(
        Draft202012Validator(schema()).iter_errors(content),
        key=lambda error: [str(part).zfill(9) for part in error.absolute_path],
    )
    # Several missing keys are several errors, but the line of each names them all.
    problems = list(dict.fromkeys(_line(content, error) for error in errors))
    if isinstance(content, Mapping):
        problems += [
            *_kind_problems(content),
            *_window_problems(content),
            *_class_problems(content),
            *_id_problems(content),
            *_case_problems(content),
            *_header_problems(content),
        ]
    return problems


def _line(content: Any, error: ValidationError) -> str:
    where = _place(content, list(error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        unknown = [key for key in error.instance if key not in known]
        return f"{where}: {'; '.join(_unknown_key(key, known) for key in unknown)}"
    if error.validator == "required":
        absent = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: {_names(absent)} missing"
    wanted = error.schema.get("description", error.message)
    return f"{where}: found {_short(error.instance)}; expected {wanted}"


def _unknown_key(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _place(content: Any, path: list[str | int]) -> str:
    if not path:
        return "manifest"
    if path[0] != "cases" or len(path) == 1:
        return ".".join(map(str, path))
    place = _case_name(content["cases"][path[1]], int(path[1]))
    return ", ".join([place, ".".join(map(str, path[2:]))]) if path[2:] else place


def _case_name(case: Any, number: int) -> str:
    name = case.get("id") if isinstance(case, Mapping) else None
    return f"case {name!r}" if isinstance(name, str) else f"cases[{number}]"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def read_kind(kind: str) -> str:
    """Return a kind as this program spells it: CT is ct."""
    return kind.strip().lower()


def _kind_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in _mapping(content.get("modalities")).items():
        kind = _mapping(entry).get("kind")
        if isinstance(kind, str) and kind.strip() and read_kind(kind) not in KINDS:
            close = difflib.get_close_matches(read_kind(kind), KINDS, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            yield (
                f"modalities.{name}.kind: unknown kind {_short(kind)}; {hint}"
                f"the kinds are {', '.join(KINDS)}"
            )


def _window_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in _mapping(content.get("modalities")).items():
        window, kind = _mapping(entry).get("window"), _mapping(entry).get("kind")
        if not isinstance(window, list) or len(window) != 2 or not isinstance(kind, str):
            continue
        if read_kind(kind) != "ct":
            yield f"modalities.{name}.window: {kind} is scaled by its mean; only a ct has a window"
        elif all(isinstance(end, int | float) for end in window) and window[0] >= window[1]:
            yield f"modalities.{name}.window: found {window}; the lowest value comes first"


def _class_problems(content: Mapping[str, Any]) -> Iterator[str]:
    holders: dict[float, list[str]] = defaultdict(list)
    for name, number in _mapping(content.get("labels")).items():
        if isinstance(number, int | float):
            holders[number].append(name)
    for number, names in holders.items():
        if len(names) > 1:
            yield f"labels: {_names(names)} share the id {number}; give each its own"
    ignore = content.get("ignore")
    if isinstance(ignore, int | float) and ignore in holders:
        owners = _names(holders[ignore])
        yield f"ignore: the id {ignore} belongs to the class {owners}; give one of them another"
    background = content.get("background")
    for number in background if isinstance(background, list) else ():
        if not isinstance(number, int | float):
            continue
        if number in holders:
            owners = _names(holders[number])
            yield f"background: the id {number} belongs to the class {owners}; keep one of the two"
        elif number == ignore:
            yield f"background: the id {number} is that of unannotated voxels; keep one of the two"


def _id_problems(content: Mapping[str, Any]) -> Iterator[str]:
    places: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for number, case in _cases(content):
        if isinstance(case.get("id"), str):
            places[case["id"]].append((number, case.get("split")))
    for name, found in places.items():
        if len(found) == 1:
            continue
        where = " and ".join(f"cases[{number}]" for number, _ in found)
        splits = list(dict.fromkeys(str(split) for _, split in found))
        if len(splits) > 1:
            yield (
                f"case {name!r}: is in the splits {' and '.join(splits)} ({where}); "
                "keep it in one, a split must not share subjects with another"
            )
        else:
            yield f"case {name!r}: the id stands twice ({where}); give each case its own"


def _case_problems(content: Mapping[str, Any]) -> Iterator[str]:
    modalities = list(_mapping(content.get("modalities")))
    classes = list(_mapping(content.get("labels")))
    for number, case in _cases(content):
        name = _case_name(case, number)
        images = _mapping(case.get("images"))
        labels = _mapping(case.get("labels"))
        for kind, files in (("images", images), ("labels", labels)):
            for modality, file in files.items():
                if isinstance(file, str) and not _can_be_a_path(file):
                    yield (
                        f"{name}, {kind}.{modality}: {_short(file)[1:-1]!a} holds a character that "
                        "no path can have; correct it"
                    )
                if modalities and modality not in modalities:
                    yield (
                        f"{name}, {kind}: modality {modality!r} is not in the manifest; "
                        f"it lists {', '.join(modalities)}"
                    )
        for modality in labels:
            if modality in modalities and modality not in images:
                yield (
                    f"{name}, labels.{modality}: a label without an image of that modality; "
                    "add the image or take the label out"
                )
        annotated = case.get("annotated")
        for unknown in annotated if isinstance(annotated, list) else ():
            if classes and isinstance(unknown, str) and unknown not in classes:
                yield (
                    f"{name}, annotated: class {unknown!r} is not in the manifest; "
                    f"its labels are {', '.join(classes)}"
                )


def _header_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for number, case in _cases(content):
        for modality in _mapping(case.get("header")):
            if modality not in _mapping(case.get("images")):
                yield (
                    f"{_case_name(case, number)}, header: no image of modality {modality!r}; take "
                    "the entry out"
                )


def _can_be_a_path(text: str) -> bool:
    """Return whether a text has neither a NUL nor a lone surrogate."""
    return "\0" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def _cases(content: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    cases = content.get("cases")
    for number, case in enumerate(cases if isinstance(cases, list) else ()):
        if isinstance(case, Mapping):
            yield number, case


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
