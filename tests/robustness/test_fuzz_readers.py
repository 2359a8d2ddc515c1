"""Random damage to headers and manifests: read or refused, never anything else."""

from __future__ import annotations

import contextlib
import gzip
import json

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossvox.data.formats.nifti import read_image, read_nifti
from crossvox.data.manifest import load_manifest, load_valid_cases
from crossvox.errors import DataError
from fixtures.files.data import scan

BOUNDED = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SOUND = nib.Nifti1Image(scan(1), np.eye(4)).to_bytes()

damage = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
case = st.fixed_dictionaries(
    {},
    optional={
        **{key: anything for key in ("id", "annotated")},
        "split": st.sampled_from(["train", "val"]) | anything,
        "images": st.dictionaries(st.sampled_from(["ct", "mr"]), st.text() | anything) | anything,
        "labels": st.dictionaries(st.sampled_from(["ct", "mr"]), st.text() | anything) | anything,
    },
)
manifest = anything | st.fixed_dictionaries(
    {
        "name": st.text() | anything,
        "modalities": st.just({"ct": {"kind": "ct"}}) | anything,
        "labels": st.dictionaries(st.text(max_size=8), st.integers()) | anything,
        "cases": st.lists(case | anything, max_size=3) | anything,
    },
    optional={key: anything for key in ("ignore", "background", "registered", "source", "extra")},
)


@BOUNDED
@given(damage=damage, packed=st.booleans())
def test_a_damaged_header_is_read_or_refused(tmp_path, damage, packed):
    content = bytearray(SOUND)
    for place, value in damage:
        content[place] = value
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    read_nifti(path)
    with contextlib.suppress(DataError):
        read_image(path)


@BOUNDED
@given(content=manifest)
def test_any_json_is_a_manifest_or_refused(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content))
    for read in (load_manifest, load_valid_cases):
        with contextlib.suppress(DataError):
            read(path)
