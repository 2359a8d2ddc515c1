"""Names of classes that are imported when they are used: crossvox's own, and those of plug-ins."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

from crossvox.errors import UsageError
from crossvox.utils.declared import NotPlainError, declared_class


class Registry(Mapping[str, Any]):
    """Name → class, which is imported when it is asked for.

    There are crossvox's own names, those that installed packages offer as entry points, and
    "package.module:Class" for any class that Python can import.

    >>> METHODS["sup"].name, "mypackage:Mine" in METHODS
    ('sup', True)
    """

    def __init__(self, part: str, group: str, entries: Mapping[str, str | type]) -> None:
        """Hold the entries.

        Args:
            part: name of the kind in messages.
            group: of the entry points of plug-ins.
            entries: name → "module:Class", or the class.
        """
        self.part = part
        self.group = group
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        target = self._target(name)
        return self._load(name, target) if isinstance(target, str) else target

    def __contains__(self, name: object) -> bool:
        known = isinstance(name, str) and (name in self._entries or ":" in name)
        return known or name in self._plug_ins()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._entries, *self._plug_ins()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def declared(self, name: str) -> type:
        """Return the class as its source declares it, or itself where that does not tell.

        Its docstring, the signature of its constructor and its plain attributes are those of the
        class. Nothing else of it is there.

        Raises:
            UsageError: no class has this name.
        """
        target = self._target(name)
        if not isinstance(target, str):
            return target
        try:
            return declared_class(target)
        except NotPlainError:
            return self._load(name, target)

    def origin(self, name: str) -> dict[str, str] | None:
        """Return where a plug-in comes from: `class` and `distribution`; None for an own class.

        The distribution is its name and version, empty where the class belongs to none.
        """
        if name in self._entries:
            return None
        target = str(self._target(name))
        if name in (found := self._plug_ins()):
            made_by = found[name].dist
            distribution = f"{made_by.name} {made_by.version}" if made_by else ""
        else:
            distribution = _distribution(target.partition(".")[0].partition(":")[0])
        return {"class": target, "distribution": distribution}

    def _plug_ins(self) -> dict[str, importlib.metadata.EntryPoint]:
        points = importlib.metadata.entry_points(group=self.group)
        return {point.name: point for point in sorted(points, key=lambda point: point.name)}

    def _target(self, name: str) -> str | type:
        if name in self._entries:
            return self._entries[name]
        if ":" in name:
            return name
        if name in (found := self._plug_ins()):
            return found[name].value
        raise KeyError(name)

    def _load(self, name: str, target: str) -> Any:
        module, _, attribute = target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(
                f"{self.part} '{name}': {target} cannot be imported ({error}); install the package "
                "that has it, or name another"
            ) from error
        return found


def _distribution(package: str) -> str:
    for name in importlib.metadata.packages_distributions().get(package, []):
        return f"{name} {importlib.metadata.version(name)}"
    return ""
