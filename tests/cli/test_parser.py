from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossvox.cli.parser import (
    add_flag,
    new_parser,
    parse,
    parse_integers,
    parse_names,
    parse_pairs,
    required,
)
from crossvox.errors import UsageError


@pytest.fixture
def parser():
    parser = new_parser("try", "Try it.")
    parser.add_argument("--out", type=Path, help="where to write")
    parser.add_argument("--mem-limit", "--mem_limit", type=float, default=2.0, help="GB")
    parser.add_argument("--split", choices=("train", "val"), default="val")
    add_flag(parser, "quiet", "say nothing")
    return parser


def test_values_have_their_types_and_defaults(parser):
    values = parse(parser, ["--out", "a ü", "--mem_limit", "3", "--quiet"])
    assert values == {"out": Path("a ü"), "mem_limit": 3.0, "split": "val", "quiet": True}
    assert parse(parser, ["--mem-limit=4"], defaults=False) == {"mem_limit": 4.0}


def test_help_names_the_types(parser):
    text = " ".join(parser.format_help().split())
    assert "(type: Path, default: null)" in text and "(type: float, default: 2.0)" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--ot", "a"], ["--ot is no option", "choose from --out"]),
        (["--mem-limits", "3"], ["--mem-limits is no option", "--mem-limit, --mem_limit"]),
        (["--qui"], ["--qui is no option", "--quiet"]),
        (["--zzz"], ["--zzz is no option", "--out", "--split", "--quiet"]),
        (["--mem-limit", "much"], ["mem_limit", "float", "much"]),
        (["--split", "test"], ["--split", "test", "train", "val"]),
        (["--out"], ["--out", "expected one argument"]),
        (["stray"], ["stray"]),
    ],
)
def test_errors_are_one_line(parser, argv, words):
    with pytest.raises(UsageError) as refusal:
        parse(parser, argv)
    line = str(refusal.value)
    assert "\n" not in line and all(word in line for word in words), line
    assert line.count("--out") < 2


def test_the_first_missing_option_is_named():
    with pytest.raises(UsageError, match=r"^--out is missing; see --help$"):
        required({"data": 0, "out": None}, "data", "out", "split")


def test_lists_and_pairs():
    assert parse_names("--x", None) is None
    assert parse_names("--x", "a, b,") == ("a", "b")
    assert parse_pairs("--x", "a=1,b=c=d") == {"a": "1", "b=c": "d"}
    assert parse_integers("--x", "a=1,b=2") == {"a": 1, "b": 2}


def test_integers_may_stand_in_a_json_file(tmp_path):
    file = tmp_path / "ids.json"
    file.write_text(json.dumps({"liver": 6}), encoding="utf-8")
    assert parse_integers("--x", str(file)) == {"liver": 6}
    file.write_text("[1]", encoding="utf-8")
    with pytest.raises(UsageError, match="expected an object"):
        parse_integers("--x", str(file))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: parse_names("--x", ","), "--x names nothing"),
        (lambda: parse_pairs("--x", "a"), "--x a: expected NAME=VALUE"),
        (lambda: parse_pairs("--x", "a=1,a=2"), "'a' stands twice"),
        (lambda: parse_integers("--x", "a=b"), "no whole number"),
    ],
)
def test_what_is_no_list_is_refused(call, words):
    with pytest.raises(UsageError, match=words):
        call()
