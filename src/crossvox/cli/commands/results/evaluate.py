"""`crossvox evaluate`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from crossvox.cli.commands.results.predict import new_scan_parser, read_options
from crossvox.cli.next_step import after_evaluation
from crossvox.cli.parser import add_flag, parse, parse_names, require_runs, required
from crossvox.data.crops.misalign import Misalign
from crossvox.data.manifest import load_manifest


def evaluate_command(argv: list[str]) -> int:
    """Score a trained run on a split: cases.csv, summary.json and a printed table."""
    parser = new_scan_parser("evaluate", evaluate_command.__doc__)
    add_flag(parser, "overlays", "also draw truth and prediction of every case")
    add_flag(parser, "include-seen", "let cases that a run learnt from enter the means")
    add_flag(parser, "figures", "also draw boxes of the scores for a paper, as PDF and SVG")
    parser.add_argument("--against", type=Path, metavar="FOLDER",
                        help="--figures, with the differences to these scores")  # fmt: skip
    parser.add_argument("--modalities", type=str, metavar="A,B",
                        help="show the method only these of each case")  # fmt: skip
    group = parser.add_argument_group("misalign: move one modality's scans, to see what it does")
    group.add_class_arguments(Misalign, "misalign", as_group=False)
    values = parse(parser, argv)
    required(values, "data", "split", "out")
    require_runs(values["run"])
    data = load_manifest(values["data"], values["root"])
    from crossvox.evaluation.scores import read_cases, seen_note, terminal_table
    from crossvox.workflows.prediction.evaluate import Scenario, ScoreOutputs, evaluate
    from crossvox.workflows.prediction.publication import draw_scores

    against = values["against"]
    if against is not None:
        read_cases(against / "cases.csv")
        values["figures"] = True
    summary = evaluate(
        values["run"],
        data,
        values["split"],
        values["out"],
        read_options(values),
        scenario=Scenario(
            parse_names("--modalities", values["modalities"]), Misalign(**values["misalign"])
        ),
        outputs=ScoreOutputs(values["overlays"], values["include_seen"]),
    )
    Console().print(terminal_table(summary))
    if note := seen_note(summary):
        print(note)
    print(f"{values['out'] / 'cases.csv'}, {values['out'] / 'summary.json'}")
    if values["figures"]:
        files = draw_scores(values["out"], against, values["include_seen"])
        print(", ".join(str(path) for path in files))
    if (following := after_evaluation(values, parser.get_defaults().as_dict())) is not None:
        print(following)
    return 0
