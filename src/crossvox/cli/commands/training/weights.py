"""`crossvox weights inspect|convert`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parser import new_parser, parse, parse_subcommand, required
from crossvox.utils.files import require_there

ACTIONS = {
    "inspect": "show model, fit, licence and training data of a file",
    "convert": "write a file's weights as safetensors",
}


def weights_command(argv: list[str]) -> int:
    """Show what a file of published weights is, or convert it to safetensors."""
    action, rest = parse_subcommand("weights", weights_command.__doc__, argv, ACTIONS)
    parser = new_parser(f"weights {action}", ACTIONS[action])
    parser.add_argument("file", type=Path, help="weights: .pth, .pt or .safetensors")
    if action == "convert":
        parser.add_argument("--out", type=Path, help="the .safetensors file to write")
    values = parse(parser, rest)
    if action == "convert":
        required(values, "out")
    require_there(values["file"])
    from crossvox.workflows.training.weights import convert_weights, inspect_weights

    if action == "inspect":
        for line in inspect_weights(values["file"]):
            print(line)
        return 0
    print(convert_weights(values["file"], values["out"]))
    return 0
