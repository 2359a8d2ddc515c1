"""Steps in parts: which methods and terms are equal to a step on all crops at once."""

from __future__ import annotations

import pytest
import torch

from crossvox.batch import Batch
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from fixtures.methods import awake, make_batch, make_method, make_task

EQUAL = {"sup": {}, "sup_joint": {}, "efcd": {}, "cmc": {"cac": "none", "csc": "infonce"}}
"""Method → options with which a step is a mean over its crops (docs/guides/distributed.md)."""

SEPARABLE = {"sup", "own", "csc", "alpha", "beta"}
"""Terms that are a mean over crops in every method that does not mix crops or draw at random."""

MIXED = {"bcp", "mmformer", "umml"}
"""Methods whose labelled crops depend on draws or on the other crops."""


@pytest.fixture(params=["unpaired", "paired", "registered"])
def task(request):
    paired, registered = request.param != "unpaired", request.param == "registered"
    return make_task(paired=paired, registered=registered)


def step(method: Method, parts: list[Batch]) -> tuple[dict, dict]:
    """Return the mean gradient over parts and the mean of each loss."""
    found: dict[str, list[float]] = {}
    method.zero_grad()
    for part in parts:
        losses = method(part, progress=0.5)
        (losses["loss"] / len(parts)).backward()
        for name, value in losses.items():
            found.setdefault(name, []).append(float(value.detach()))
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return {n: g.clone() for n, g in gradients.items()}, {
        name: sum(values) / len(parts) for name, values in found.items()
    }


@pytest.mark.parametrize("name", EQUAL)
def test_a_loss_that_is_a_mean_over_crops_has_the_same_gradient_in_parts(name, task):
    method = awake(make_method(name, task, **EQUAL[name]))
    batch = make_batch(task, labelled=4, unlabelled=4)
    whole, whole_losses = step(method, [batch])
    for n in (2, 4):
        gradient, losses = step(method, batch.parts(n))
        assert whole and gradient.keys() == whole.keys()
        for key, expected in whole.items():
            scale = float(expected.abs().max())
            torch.testing.assert_close(
                gradient[key], expected, rtol=1e-4, atol=1e-5 * scale + 1e-8, msg=f"{key}, {n}"
            )
        assert losses["loss"] == pytest.approx(whole_losses["loss"], rel=1e-5)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - MIXED))
def test_only_terms_that_compare_crops_change_in_parts(name, task):
    method = make_method(name, task)
    batch = make_batch(task, labelled=4, unlabelled=4)
    torch.manual_seed(0)
    _, whole = step(method, [batch])
    torch.manual_seed(0)
    _, found = step(method, batch.parts(2))
    compared = {"csc"} if task.overlaid else set()  # its form is `content`
    kept = SEPARABLE & whole.keys() - compared
    assert kept
    assert {t: found[t] for t in kept} == pytest.approx({t: whole[t] for t in kept}, rel=1e-4)


def test_csc_takes_away_what_the_crops_of_its_part_have_in_common():
    task = make_task(paired=True, registered=True)
    batch = make_batch(task, labelled=4, unlabelled=4)

    def csc(parts, **options):
        return step(make_method("cmc", task, **options), batch.parts(parts))[1]["csc"]

    assert csc(2) != pytest.approx(csc(1), rel=1e-4)
    # A crop alone in its part keeps all.
    assert csc(4) == pytest.approx(csc(4, csc="infonce"), rel=1e-5)
    assert csc(4) == pytest.approx(csc(1, csc="infonce"), rel=1e-4)


def test_contrast_has_the_negatives_of_its_part_only():
    task = make_task()
    batch = make_batch(task, unlabelled=2)
    _, whole = step(make_method("cmc", task), [batch])
    _, found = step(make_method("cmc", task), batch.parts(2))
    assert "cac_fallback" not in whole and found["cac_fallback"] == 1


def test_parts_hold_all_rows_once_and_refuse_a_rest():
    batch = make_batch(make_task(paired=True), labelled=4, unlabelled=2)
    one, other = batch.parts(2)
    for view, halves in (
        (batch.labelled["mr"], (one.labelled["mr"], other.labelled["mr"])),
        (batch.unlabelled, (one.unlabelled, other.unlabelled)),
    ):
        for m, image in view.images.items():
            assert torch.equal(torch.cat([half.images[m] for half in halves]), image)
            first, second = (half.same_subject[m] for half in halves)
            assert first + second == view.same_subject[m]
    labels = [part.labelled["ct"].label for part in (one, other)]
    assert torch.equal(torch.cat(labels), batch.labelled["ct"].label)
    assert batch.parts(1) == [batch]
    with pytest.raises(ValueError, match=r"^4 rows cannot be split into 3 equal parts$"):
        batch.parts(3)
