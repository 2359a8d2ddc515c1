"""`crossvox weights inspect|convert`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parser import new_parser, parse, required
from crossvox.errors import UsageError
from crossvox.workflows.weights import convert_weights, inspect_weights


def weights_command(argv: list[str]) -> int:
    """Show what a file of published weights is, or convert it to safetensors."""
    what, rest = (argv[0], argv[1:]) if argv else ("", [])
    if what in ("-h", "--help"):
        print(f"usage: crossvox weights {{{','.join(_ACTIONS)}}} …\n\n{weights_command.__doc__}")
        return 0
    if what not in _ACTIONS:
        raise UsageError(f"unknown action 'weights {what}'; choose from {', '.join(_ACTIONS)}")
    return _ACTIONS[what](rest)


def _inspect(argv: list[str]) -> int:
    parser = new_parser("weights inspect", "Show model, fit, licence and training data of a file.")
    parser.add_argument("file", type=Path, help="weights: .pth, .pt or .safetensors")
    for line in inspect_weights(parse(parser, argv)["file"]):
        print(line)
    return 0


def _convert(argv: list[str]) -> int:
    parser = new_parser("weights convert", "Write a file's weights as safetensors.")
    parser.add_argument("file", type=Path, help="weights: .pth, .pt or .safetensors")
    parser.add_argument("--out", type=Path, help="the .safetensors file to write")
    values = parse(parser, argv)
    required(values, "out")
    print(convert_weights(values["file"], values["out"]))
    return 0


_ACTIONS = {"inspect": _inspect, "convert": _convert}
