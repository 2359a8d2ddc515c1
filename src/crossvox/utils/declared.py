"""Read what a class declares from its source, without importing its module.

A method or a backbone imports torch, which takes seconds. Its options, its summary and its other
plain attributes stand in the source, and that is all that `--help` and `list` need.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any


class NotPlainError(Exception):
    """A class whose declaration can only be known by importing it."""


def declared_class(target: str) -> type:
    """Return a class with the docstring, the signature and the attributes of "module:Class".

    Its base classes are such classes too; its functions are left out. Parameters before the `*` of
    the constructor have no type.

    Raises:
        NotPlainError: there is no source, or it is not plain: a decorated class, a base class or a
            value from a package other than crossvox and the class's own.
    """
    module, _, name = target.partition(":")
    try:
        found = _names(module, frozenset({"crossvox", module.partition(".")[0]}))[name]
    except (
        AttributeError, LookupError, NameError, OSError, SyntaxError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise NotPlainError(f"{target}: {error}") from error
    if not isinstance(found, type):
        raise NotPlainError(f"{target}: no class")
    return found


class _Names(dict[str, Any]):
    """The names of a module; each is evaluated from the source when it is first asked for."""

    def __init__(self, module: str, packages: frozenset[str]) -> None:
        super().__init__(__name__=module)
        self.packages = packages
        self.nodes: dict[str, ast.expr | ast.ClassDef | tuple[str, str]] = {}
        for node in ast.parse(_source(module)).body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.nodes[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.ClassDef):
                self.nodes[node.name] = node
            else:
                self.nodes.update(_assigned(node))

    def __missing__(self, name: str) -> Any:
        node = self.nodes[name]
        if isinstance(node, tuple):
            self[name] = self._imported(*node)
        else:
            self[name] = self._class(node) if isinstance(node, ast.ClassDef) else self._value(node)
        return self[name]

    def _imported(self, module: str, name: str) -> Any:
        package = module.partition(".")[0]
        if package in self.packages:
            return _names(module, self.packages)[name]
        if package in sys.stdlib_module_names:
            return getattr(importlib.import_module(module), name)
        raise KeyError(name)

    def _value(self, node: ast.expr) -> Any:
        return eval(compile(ast.Expression(node), self["__name__"], "eval"), {}, self)

    def _class(self, node: ast.ClassDef) -> type:
        if node.decorator_list or node.keywords:
            raise KeyError(f"{node.name} is decorated")
        # `nn.Module` declares nothing that is asked for.
        bases = [base for base in node.bases if ast.unparse(base) != "nn.Module"]
        content: dict[str, Any] = {"__doc__": ast.get_docstring(node), "__module__": "declared"}
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                content["__init__"] = self._constructor(part)
            content |= {name: self._value(value) for name, value in _assigned(part).items()}
        return type(node.name, tuple(self._value(base) for base in bases), content)

    def _constructor(self, node: ast.FunctionDef) -> Any:
        def __init__(self: object, *args: object, **options: object) -> None:  # noqa: N807
            raise TypeError(f"{type(self).__name__} is only declared")

        __init__.__doc__ = ast.get_docstring(node)
        signature = inspect.Signature(self._parameters(node.args))
        __init__.__signature__ = signature  # type: ignore[attr-defined]
        types = {p.name: p.annotation for p in signature.parameters.values()}
        __init__.__annotations__ = {k: v for k, v in types.items() if v is not inspect._empty}
        return __init__

    def _parameters(self, arguments: ast.arguments) -> list[inspect.Parameter]:
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg or arguments.defaults:
            raise KeyError("options are not keywords")
        made = [
            inspect.Parameter(argument.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for argument in arguments.args
        ]
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            known = {
                key: self._value(node)
                for key, node in (("annotation", argument.annotation), ("default", default))
                if node is not None
            }
            made.append(inspect.Parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, **known))
        return made


@functools.cache
def _names(module: str, packages: frozenset[str]) -> _Names:
    return _Names(module, packages)


def _assigned(node: ast.stmt) -> dict[str, ast.expr]:
    """Return name → value of an assignment to a single name; nothing for other statements."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return {node.targets[0].id: node.value}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        return {node.target.id: node.value}
    return {}


def _source(module: str) -> str:
    """Return the source of a module; packages around it are not imported."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for name in rest:
        if spec is None:
            break
        spec = PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations)
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise KeyError(f"no source of {module}")
    return Path(spec.origin or "").read_text(encoding="utf-8")
