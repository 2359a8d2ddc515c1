"""Scans of one case that are those of different patients."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.phantom import write_phantom
from crossvox.data.prepare.partners import partner_problems


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("pairs")
    path = write_phantom(folder, train=4, val=1, test=0, paired=True, shape=(48, 40, 20))
    return load_manifest(path)


def mixed(manifest: Manifest) -> Manifest:
    """Two folders with other patients of the same names."""
    others = [*manifest.cases[2:], *manifest.cases[:2]]
    cases = [
        replace(case, images={"ct": case.images["ct"], "mr": other.images["mr"]}, labels={})
        for case, other in zip(manifest.cases, others, strict=True)
    ]
    return replace(manifest, cases=tuple(cases))


def test_scans_of_one_patient_are_not_told(pairs):
    assert partner_problems(pairs) == []


def test_scans_of_different_patients_are_told_with_the_flag_that_parts_them(pairs):
    (problem,) = partner_problems(mixed(pairs))
    assert problem.severity == "warning" and problem.modality == "ct, mr"
    assert pairs.cases[0].id in problem.found and "--unpaired" in problem.fix


def test_a_few_cases_or_faulty_scans_say_nothing(pairs):
    wrong = mixed(pairs)
    assert partner_problems(replace(wrong, cases=wrong.cases[:3])) == []
    faulty = [(case.id, "mr") for case in wrong.cases[:2]]
    assert partner_problems(wrong, faulty) == []
