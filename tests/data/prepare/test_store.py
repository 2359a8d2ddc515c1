"""Prepared arrays: written once, read by patch, never used when stale or torn."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import blosc2
import numpy as np
import pytest

from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import load_manifest
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.store import Store
from crossvox.workflows.validation.learnt import LearntScan, in_store, seen_cases


@pytest.fixture
def manifest(unpaired_files, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(unpaired_files.path.parent, tmp_path / "data")
    return load_manifest(tmp_path / "data" / "dataset.json")


def lazy(inputs, output, offset):
    """Code that a file may ask blosc2 to run."""
    raise AssertionError("code out of a file was run")


def test_an_array_that_asks_for_code_to_be_run_is_made_anew(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    file = Store(tmp_path / "s", preprocessing).image(case, "ct").file
    sound = blosc2.open(str(file))[:]
    source = blosc2.asarray(np.zeros(8), urlpath=str(tmp_path / "source.b2nd"), mode="w")
    file.unlink()
    try:
        blosc2.lazyudf(lazy, (source,), np.float64, shape=(8,)).save(urlpath=str(file))
    except NotImplementedError:
        pytest.skip("this blosc2 stores no code")
    assert b"LazyArray" in file.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        # Some versions of blosc2 run it when they open the file, so nothing may open it.
        patch.setattr(blosc2, "open", lambda *given, **more: pytest.fail("was opened"))
        assert not Store(tmp_path / "s", preprocessing).has(case, "ct")
    again = Store(tmp_path / "s", preprocessing).image(case, "ct")
    np.testing.assert_array_equal(again.array[:], sound)


@pytest.fixture
def preprocessing(manifest):
    return make_plan(fingerprint(manifest), manifest, Budget(4000)).preprocessing


def test_patches_are_what_preprocessing_gives(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    entry = Store(tmp_path / "store", preprocessing).image(case, "ct")
    volume = read_image(case.images["ct"])
    direct = preprocessing.prepare_image(volume.data, volume.grid, "ct")
    low, high = np.array([1, 2, 0]), np.array([9, 7, 3])
    np.testing.assert_allclose(
        entry.read(low, high), direct.array[1:9, 2:7, 0:3], atol=2e-3, rtol=1e-3
    )
    assert entry.shape == direct.grid.shape and entry.fill == pytest.approx(direct.fill)
    np.testing.assert_array_equal(entry.body_box, direct.body_box)


def test_an_entry_is_made_once(manifest, preprocessing, tmp_path):
    case = manifest.case("mr1")
    file = Store(tmp_path / "s", preprocessing).image(case, "mr").file
    stamp = file.stat().st_mtime_ns
    Store(tmp_path / "s", preprocessing).image(case, "mr")
    assert file.stat().st_mtime_ns == stamp


def test_a_changed_scan_is_prepared_again(manifest, preprocessing, tmp_path):
    case, other = manifest.case("mr1"), manifest.case("mr2")
    before = Store(tmp_path / "s", preprocessing).image(case, "mr").array[:]
    shutil.copy(other.images["mr"], case.images["mr"])
    after = Store(tmp_path / "s", preprocessing).image(case, "mr").array[:]
    assert before.shape != after.shape or not np.array_equal(before, after)


def test_a_touched_scan_is_not(manifest, preprocessing, tmp_path):
    case = manifest.case("mr1")
    file = Store(tmp_path / "s", preprocessing).image(case, "mr").file
    stamp = file.stat().st_mtime_ns
    os.utime(case.images["mr"], ns=(1, 1))
    Store(tmp_path / "s", preprocessing).image(case, "mr")
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_torn_file_is_prepared_again(manifest, preprocessing, tmp_path, keep):
    case = manifest.case("ct0")
    entry = Store(tmp_path / "s", preprocessing).image(case, "ct")
    expected = entry.array[:]
    whole = entry.file.read_bytes()
    entry.file.write_bytes(whole[: keep if keep >= 1 or keep == 0 else int(len(whole) * keep)])
    np.testing.assert_array_equal(
        Store(tmp_path / "s", preprocessing).image(case, "ct").array[:], expected
    )


def test_changed_label_ids_are_prepared_again(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    both = Store(tmp_path / "s", preprocessing).label(case, "ct", manifest.labels, None)
    assert set(np.unique(both.array[:])) == {0, 1, 2}
    one = Store(tmp_path / "s", preprocessing).label(case, "ct", {"right ball": 9}, None)
    assert set(np.unique(one.array[:])) == {0, 1}


def test_other_label_ids_do_not_disturb_a_label_in_use(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    used = Store(tmp_path / "s", preprocessing).label(case, "ct", manifest.labels, None)
    before = used.array[:]
    Store(tmp_path / "s", preprocessing).label(case, "ct", {"right ball": 9}, None)
    np.testing.assert_array_equal(used.array[:], before)


def test_a_set_with_the_same_names_does_not_disturb_a_scan_in_use(
    manifest, preprocessing, tmp_path
):
    case = manifest.case("mr1")
    used = Store(tmp_path / "s", preprocessing).image(case, "mr")
    before = used.array[:]
    elsewhere = replace(case, images={"mr": manifest.case("mr2").images["mr"]})
    other = Store(tmp_path / "s", preprocessing).image(elsewhere, "mr")
    assert not np.array_equal(other.array[:], before)
    np.testing.assert_array_equal(used.array[:], before)


def test_a_scan_whose_header_was_chosen_is_told_from_others(manifest, preprocessing, tmp_path):
    store = Store(tmp_path / "s", preprocessing)
    one, two = (replace(manifest.case(c), header={"ct": "sform"}) for c in ("ct0", "ct1"))
    learnt = [LearntScan("ct0", "ct", "", store.image(one, "ct").meta["voxels"])]
    assert seen_cases([one, two], learnt, in_store(learnt, store)) == ["ct0"]


def test_arrays_prepared_in_two_ways_do_not_disturb_each_other(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    one = Store(tmp_path / "s", preprocessing).image(case, "ct")
    other = make_plan(fingerprint(manifest), manifest, Budget(400)).preprocessing
    assert Store(tmp_path / "s", other).image(case, "ct").shape != one.shape
    again = Store(tmp_path / "s", preprocessing).image(case, "ct")
    assert again.file == one.file and np.array_equal(again.array[:], one.array[:])


def test_a_failure_leaves_nothing_behind(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    case.images["ct"].write_bytes(b"broken")
    with pytest.raises(Exception, match="without gzip data"):
        Store(tmp_path / "s", preprocessing).image(case, "ct")
    assert not (tmp_path / "s").exists()


def test_sound_sources_are_known(manifest, preprocessing, tmp_path):
    case = manifest.case("ct0")
    Store(tmp_path / "s", preprocessing).image(case, "ct")
    fresh = Store(tmp_path / "s", preprocessing)
    assert fresh.has(case, "ct") and not fresh.has(manifest.case("ct1"), "ct")
