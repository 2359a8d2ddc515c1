from __future__ import annotations

import inspect

import pytest

from crossvox.config.registry import CLASSES, NOT_OPTIONS, complete, find_class, trained_task
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.errors import UsageError
from fixtures.methods import make_task

ALL = [(part, name) for part, classes in CLASSES.items() for name in classes]


@pytest.mark.parametrize(("part", "name"), ALL)
def test_every_option_is_completed_by_its_default(part: str, name: str) -> None:
    parameters = inspect.signature(CLASSES[part][name]).parameters
    options = {key: p.default for key, p in parameters.items() if key not in NOT_OPTIONS}
    assert complete(part, {"name": name}) == {"name": name, **options}
    assert complete(part, name) == complete(part, {"name": name})


def test_given_options_stay() -> None:
    done = complete("method", {"name": "cmc+", "weight": 0.5})
    assert done["weight"] == 0.5 and list(done)[:2] == ["name", "weight"]
    assert complete("method", done) == done


@pytest.mark.parametrize("given", [{}, {"name": "gone"}, "gone", ["x"], None])
def test_an_unknown_name_is_refused_with_the_choices(given: object) -> None:
    with pytest.raises(UsageError, match=r"^unknown method '.*'; choose from bcp, cmc, "):
        complete("method", given)
    with pytest.raises(UsageError, match=r"^unknown backbone 'gone'; choose from unet, "):
        find_class("backbone", "gone")


def test_an_unknown_option_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"^backbone 'unet' has no option 'odd'; .*width"):
        complete("backbone", {"name": "unet", "odd": 1})
    with pytest.raises(UsageError, match=r"^method 'sup' has no option 'pretrained'"):
        complete("method", {"name": "sup", "pretrained": True})


@pytest.mark.parametrize(
    ("registered", "misalign", "align", "expected"),
    [
        (True, {}, True, (True, False)),
        (True, {"shift": 5.0}, True, (False, True)),
        (True, {"rotate": 5.0}, False, (False, False)),
        (False, {}, True, (False, True)),
        (False, {}, False, (False, False)),
    ],
)
def test_scans_that_a_run_misaligns_are_not_registered(
    registered: bool, misalign: dict[str, float], align: bool, expected: tuple[bool, bool]
) -> None:
    values = {"method": "cmc", "sampling": {"align": align}, "misalign": misalign}
    config = RunConfig.from_dict(parse_settings(Settings(values)) | {"data": "d.json", "out": "o"})
    task = trained_task(make_task(paired=True, registered=registered), config)
    assert (task.registered, task.aligned) == expected
