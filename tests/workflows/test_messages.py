"""Lines about a plan and about a training that has ended."""

from __future__ import annotations

import pytest

from crossvox.data.prepare.plan import Ceiling
from crossvox.workflows.messages import describe_ceiling, describe_curve


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ([(200, 0.50), (400, 0.51)], "still rising"),
        ([(200, 0.50), (400, 0.509)], "flat"),
        ([(200, 0.50), (400, 0.491)], "flat"),
        ([(200, 0.50), (400, 0.48)], "falling"),
        ([(100, 0.1), (200, 0.50), (300, 0.2), (400, 0.50)], "flat"),
        ([(133, 0.3), (266, 0.5), (400, 0.5)], "still rising"),
        ([(400, 0.5)], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_curve_is_judged_by_the_second_half_of_the_steps(scores, word) -> None:
    said = describe_curve(scores, 400)
    assert said.startswith(f"curve        {word}")
    assert ("--fit.steps 800" in said) == (word == "still rising")


class PlanWith:
    def __init__(self, **ceiling: Ceiling) -> None:
        self.ceiling = ceiling


def test_a_spacing_that_costs_much_is_told_with_the_way_out() -> None:
    fine = list(describe_ceiling(PlanWith(ct=Ceiling(2, {"liver": 0.98, "vein": 0.95}))))
    assert fine[0] == "ceiling      ct: liver 0.980, vein 0.950" and len(fine) == 2
    assert "2 labelled scans" in fine[1]
    coarse = list(describe_ceiling(PlanWith(ct=Ceiling(1, {"vein": 0.71}))))
    assert "0.710 is low" in coarse[-1] and "--budget.spacing" in coarse[-1]
