"""The manifest of a data set: its scans, what they show, and which of them are labelled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossvox.data.form import Form
from crossvox.data.manifest.paths import PathResolver, needed_root
from crossvox.data.manifest.rules import read_kind, schema, structural_problems
from crossvox.data.manifest.sides import mirrors
from crossvox.errors import DataError, UsageError
from crossvox.utils.files import atomic_write

if TYPE_CHECKING:
    from crossvox.data.formats.nifti import Volume
    from crossvox.data.geometry import Grid

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Case:
    """One subject.

    Attributes:
        id: unique in the data set and usable as a file name.
        split: "train", "val" or "test"; empty while a converter has not assigned one.
        images: modality → path of the scan, at least one.
        labels: modality → path of its label map; a modality without one is unlabelled.
        annotated: names of the classes that were outlined; None = all of them.
        drafted: modalities whose label began as a run's draft. It resembles that run, so it is for
            training.
        header: modality → part of the image's header that places its voxels, where it contradicts
            itself; others are read by the rule of `formats.nifti.geometry`.
    """

    id: str
    split: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path] = field(default_factory=dict)
    annotated: tuple[str, ...] | None = None
    drafted: tuple[str, ...] = ()
    header: Mapping[str, Form] = field(default_factory=dict)

    def form(self, modality: str) -> Form:
        """Return the part of an image's header that places its voxels."""
        return self.header.get(modality, "auto")

    def read_grid(self, modality: str) -> Grid:
        """Return where an image lies, without reading its voxels; raises `DataError`."""
        # Imported here: most who read a manifest open no scan.
        from crossvox.data.formats.nifti import read_header

        return read_header(self.images[modality], self.form(modality))

    def read_image(self, modality: str) -> Volume:
        """Read an image; raises `DataError`."""
        # Imported here: most who read a manifest open no scan.
        from crossvox.data.formats.nifti import read_image

        return read_image(self.images[modality], self.form(modality))

    @property
    def files(self) -> list[Path]:
        """All images and labels; a label of several modalities is listed for each."""
        return [*self.images.values(), *self.labels.values()]

    @property
    def fully_labelled(self) -> bool:
        """Each image has a label."""
        return set(self.images) == set(self.labels)

    @property
    def scorable(self) -> bool:
        """Each image has a label, and none of them began as a draft."""
        return self.fully_labelled and not self.drafted


@dataclass(frozen=True)
class Manifest:
    """A data set. One that breaks the format's rules cannot be made (`DataError`).

    Attributes:
        name: of the data set.
        modalities: name → kind (`rules.KINDS`), in the order that the networks use.
        labels: class name → id in the label files; class index 1 is the first of them.
        cases: all subjects. A run takes its labelled cases from the front.
        registered: the images of a subject agree voxel by voxel in world space.
        windows: modality → lowest and highest HU that a CT is clipped to, where one is asked for.
        mirror: a left-right mirrored scan may show the same classes; None = as their names tell.
        ignore: id of unannotated voxels in the label files.
        background: further ids in the label files that count as background, such as those of
            classes left out.
        source: how the manifest was made (converter, split, seeds), for the reader only.
        path: the file it was read from.
    """

    name: str
    modalities: dict[str, str]
    labels: dict[str, int]
    cases: tuple[Case, ...]
    registered: bool = False
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mirror: bool | None = None
    ignore: int | None = None
    background: tuple[int, ...] = ()
    source: str = ""
    path: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        kinds = {m: read_kind(k) if isinstance(k, str) else k for m, k in self.modalities.items()}
        object.__setattr__(self, "modalities", kinds)
        _refuse(structural_problems(self._to_dict(None)), str(self.path or f"data set {self.name}"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground class names, in the order of their class indices 1..K."""
        return tuple(self.labels)

    @property
    def mirrors(self) -> bool:
        """Whether scans may be mirrored left to right; names that may tell a side forbid it."""
        return mirrors(self.labels) if self.mirror is None else self.mirror

    @property
    def location(self) -> str:
        """Its file, or its name if it has none, for messages."""
        return str(self.path or self.name)

    def split(self, name: str) -> tuple[Case, ...]:
        """Return the cases of a split, in the manifest's order; there may be none.

        Raises:
            UsageError: there is no split of that name.
        """
        if name not in SPLITS:
            raise UsageError(f"no split {name!r}; choose one of {', '.join(SPLITS)}")
        return tuple(case for case in self.cases if case.split == name)

    def case(self, id: str) -> Case:
        """Return the case of an id; raises `UsageError` if there is none."""
        for case in self.cases:
            if case.id == id:
                return case
        raise UsageError(f"no case {id!r} in {self.location}")

    def save(self, path: Path | str) -> None:
        """Write the manifest, as a whole or not at all, with paths relative to its folder."""
        atomic_write(path, self.to_json(Path(path).parent))

    def to_json(self, folder: Path) -> str:
        """Return the text of the manifest as a file in `folder`."""
        return json.dumps(self._to_dict(folder), indent=1, ensure_ascii=False) + "\n"

    def needed_root(self, folder: Path) -> Path | None:
        """Return the `--root` that the manifest needs in `folder`; None if it needs none."""
        return needed_root((file for case in self.cases for file in case.files), folder)

    def _modality(self, name: str) -> dict[str, Any]:
        window = {"window": list(self.windows[name])} if name in self.windows else {}
        return {"kind": self.modalities[name], **window}

    def _to_dict(self, root: Path | None) -> dict[str, Any]:
        content: dict[str, Any] = {"name": self.name}
        if self.source:
            content["source"] = self.source
        content |= {
            "modalities": {name: self._modality(name) for name in self.modalities},
            "labels": dict(self.labels),
        }
        if self.registered:
            content["registered"] = self.registered
        if self.mirror is not None:
            content["mirror"] = self.mirror
        if self.ignore is not None:
            content["ignore"] = self.ignore
        if self.background:
            content["background"] = list(self.background)
        content["cases"] = [_case_to_dict(case, root) for case in self.cases]
        return content


def load_manifest(path: Path | str, root: Path | str | None = None) -> Manifest:
    """Read a manifest (format: `dataset.schema.json`) without opening its scans.

    Args:
        path: the file.
        root: folder below which all files that it names must lie, links followed; None = its own.
            A relative path starts at the manifest's folder or, if that leads out of the root, at
            the root.

    Raises:
        DataError: the file is missing, not JSON, breaks the format's rules or names files outside
            the root; the message lists every problem.

    Examples:
        >>> manifest = load_manifest("abdomen/dataset.json")
        >>> [case.id for case in manifest.split("val")]
        ['ct07', 'mr03']
    """
    path = Path(path)
    content, repeated = _read_json(path)
    _refuse(repeated + structural_problems(content), str(path))
    resolver = _resolver(path, root)
    outside = resolver.outside(content["cases"])
    _refuse([outside] if outside else [], str(path))
    return _manifest(content, path, resolver)


def as_manifest(data: Manifest | Path | str) -> Manifest:
    """Return a data set that was given as a manifest or as its file; raises as `load_manifest`."""
    return data if isinstance(data, Manifest) else load_manifest(data)


def load_valid_cases(
    path: Path | str, root: Path | str | None = None
) -> tuple[Manifest | None, list[str]]:
    """Read the cases of a manifest that follow the format's rules, and list every broken rule.

    Args:
        path: the file.
        root: as in `load_manifest`; cases with files outside it are left out.

    Returns:
        The manifest with the cases that break no rule; None if its head breaks a rule, or no case
        is left. Then the broken rules; if there are none, the manifest is whole.

    Raises:
        DataError: the file is missing or not JSON.
    """
    path = Path(path)
    content, repeated = _read_json(path)
    problems = repeated + structural_problems(content)
    if not isinstance(content, dict):
        return None, problems
    head = {key: content[key] for key in schema()["properties"] if key in content}
    cases = head.pop("cases", None)
    valid: dict[str, Any] = {}
    for case in cases if isinstance(cases, list) else ():
        if not problems or not structural_problems({**head, "cases": [case]}):
            valid.setdefault(case["id"], case)
    resolver = _resolver(path, root)
    outside = resolver.outside(valid.values())
    inside = [case for case in valid.values() if not (outside and resolver.stray_file(case))]
    manifest = _manifest({**head, "cases": inside}, path, resolver) if inside else None
    return manifest, problems + ([outside] if outside else [])


def _resolver(path: Path, root: Path | str | None) -> PathResolver:
    return PathResolver(path.parent, None if root is None else Path(root))


def _manifest(content: Mapping[str, Any], path: Path, resolver: PathResolver) -> Manifest:
    return Manifest(
        name=content["name"],
        modalities={name: entry["kind"] for name, entry in content["modalities"].items()},
        labels={name: int(id) for name, id in content["labels"].items()},
        cases=tuple(_case_from_dict(case, resolver) for case in content["cases"]),
        registered=content.get("registered", False),
        windows={
            name: (float(entry["window"][0]), float(entry["window"][1]))
            for name, entry in content["modalities"].items()
            if "window" in entry
        },
        mirror=content.get("mirror"),
        ignore=int(content["ignore"]) if "ignore" in content else None,
        background=tuple(int(id) for id in content.get("background", ())),
        source=content.get("source", ""),
        path=path.absolute(),
    )


def _case_from_dict(content: Mapping[str, Any], resolver: PathResolver) -> Case:
    return Case(
        id=content["id"],
        split=content["split"],
        images={m: resolver.resolve(file) for m, file in content["images"].items()},
        labels={m: resolver.resolve(file) for m, file in content.get("labels", {}).items()},
        annotated=tuple(content["annotated"]) if "annotated" in content else None,
        drafted=tuple(content.get("drafted", ())),
        header=dict(content.get("header", {})),
    )


def _case_to_dict(case: Case, root: Path | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": case.id,
        "split": case.split,
        "images": {modality: _relative(file, root) for modality, file in case.images.items()},
    }
    if case.labels:
        content["labels"] = {m: _relative(file, root) for m, file in case.labels.items()}
    if header := {m: form for m, form in case.header.items() if m in case.images}:
        content["header"] = header
    if case.annotated is not None:
        content["annotated"] = list(case.annotated)
    if case.drafted:
        content["drafted"] = list(case.drafted)
    return content


def _relative(file: Path, root: Path | None) -> str:
    if root is None:
        return str(file)
    try:
        return Path(os.path.relpath(file, root)).as_posix()
    except ValueError:  # on Windows no relative path leads to another drive
        return Path(file).absolute().as_posix()


def _read_json(path: Path) -> tuple[Any, list[str]]:
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                repeated.append(key)
            seen[key] = value
        return seen

    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=unique)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give the path of a dataset.json") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: unreadable ({error}); expected a UTF-8 JSON file") from error
    except (ValueError, RecursionError) as error:  # e.g. a number of thousands of digits
        raise DataError(f"{path}: not JSON ({error}); correct the file there") from error
    # JSON keeps the last of two equal keys, which would silently lose a modality or class.
    return content, [f"the key {key!r} stands twice in one object; keep one" for key in repeated]


def _refuse(problems: list[str], where: str) -> None:
    if len(problems) == 1:
        raise DataError(f"{where}: {problems[0]}")
    if problems:
        raise DataError("\n  ".join([f"{where}: {len(problems)} problems", *problems]))
