"""Teachers: the moving average by hand, in methods, and across a resumed training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossvox.errors import UsageError
from crossvox.methods.base import Method
from crossvox.methods.mean_teacher import Teacher
from fixtures.methods import crops, make_batch, make_method, make_task

TAUGHT = ("bcp", "cml", "uamt")
PAIRED = make_task(paired=True)


def scalar(value: float) -> nn.Linear:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def two_classes() -> nn.Conv3d:
    """Logits (0, x) of image x, so the probability of class 1 is sigmoid(x)."""
    net = nn.Conv3d(1, 2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1))
    return net


def steps(method: Method, numbers: range) -> None:
    """Take plain gradient steps, whose optimiser has no state."""
    optimiser = torch.optim.SGD(method.parameter_groups(), lr=0.05)
    for t in numbers:
        optimiser.zero_grad()
        method(make_batch(method.task, seed=t), t / 6)["loss"].backward()
        optimiser.step()
        method.after_step()


def test_average_by_hand() -> None:
    # d = min(1 − 1/(t + 1), 0.6): 0, 1/2, 0.6 (not 2/3).
    # 0·(−3) + 1·4 = 4;  ½·4 + ½·8 = 6;  0.6·6 + 0.4·1 = 4.
    teacher, student = Teacher(scalar(-3.0), decay=0.6), scalar(0.0)
    for value, expected in ((4.0, 4.0), (8.0, 6.0), (1.0, 4.0)):
        nn.init.constant_(student.weight, value)
        teacher.update(student)
        assert float(teacher.model.weight) == pytest.approx(expected)  # type: ignore[arg-type]
    assert int(teacher.steps) == 3


def test_students_may_share_what_is_frozen() -> None:
    student = nn.ModuleList([nn.Sequential(nn.Conv3d(1, 1, 1), nn.Conv3d(1, 2, 1)) for _ in "ab"])
    for net in student:
        net[0].requires_grad_(False)
    teacher = Teacher(student, decay=0.5)
    student[1][0] = student[0][0]
    with torch.no_grad():
        student[1][1].weight.add_(1)
    for _ in range(2):
        teacher.update(student)
    for own, other in zip(teacher.model[1], student[1], strict=True):
        torch.testing.assert_close(own.weight, other.weight)


def test_buffers_are_copied_not_averaged() -> None:
    student = nn.BatchNorm3d(1)
    teacher = Teacher(student, decay=0.9)
    for value in (1.0, 5.0):
        student.running_mean = torch.full((1,), value)
        teacher.update(student)
    assert teacher.model.running_mean.tolist() == [5.0]  # type: ignore[union-attr,operator]


def test_is_a_frozen_copy_that_moves_only_when_told() -> None:
    student = scalar(1.0)
    teacher = Teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    nn.init.constant_(student.weight, 7.0)
    assert float(teacher.model.weight) == 1.0  # type: ignore[arg-type]
    assert not teacher(crops(1, 0)[..., :1]).requires_grad


def test_mean_is_over_passes_whose_noise_is_cut() -> None:
    teacher, images = Teacher(two_classes()), torch.zeros(1, 1, 20, 20, 20)
    low, high = (float(torch.sigmoid(torch.tensor(x))) for x in (-0.2, 0.2))
    torch.manual_seed(0)
    once = teacher.mean(images, passes=1)[:, 1]
    assert float(once.min()) == pytest.approx(low, abs=1e-6)
    assert float(once.max()) == pytest.approx(high, abs=1e-6)
    often = teacher.mean(images, passes=16)[:, 1]
    assert float(often.std()) == pytest.approx(float(once.std()) / 4, rel=0.1)
    assert torch.allclose(teacher.mean(images, 3, noise=0.0), teacher(images))
    with pytest.raises(ValueError, match="passes is 0"):
        teacher.mean(images, passes=0)


def test_mean_is_of_probabilities_not_of_logits() -> None:
    # sigmoid(2 ± noise): the curve bends down there, so the mean lies below sigmoid(2) = 0.8808.
    images = torch.full((1, 1, 16, 16, 16), 2.0)
    torch.manual_seed(0)
    found = Teacher(two_classes()).mean(images, passes=8, noise=2.0)
    assert float(found[:, 1].mean()) < 0.84
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 16, 16, 16))


@pytest.mark.parametrize("name", TAUGHT)
def test_teachers_follow_their_own_modality(name: str) -> None:
    method = make_method(name, PAIRED)
    students: list[list[Tensor]] = []
    for t in range(3):
        steps(method, range(t, t + 1))
        students.append([p.detach().clone() for p in method.nets.parameters()])
    averages = [torch.stack(found).mean(dim=0) for found in zip(*students, strict=True)]
    taught = [p for teacher in method.teachers for p in teacher.model.parameters()]
    for own, average in zip(taught, averages, strict=True):
        torch.testing.assert_close(own, average)


@pytest.mark.parametrize("name", TAUGHT)
def test_images_are_segmented_by_the_student(name: str) -> None:
    method, images = make_method(name, PAIRED), {"ct": crops(1, 0)}
    with torch.no_grad():
        before = method.predict(images)["ct"]
        for p in method.teachers.parameters():
            p.zero_()
        assert torch.equal(method.predict(images)["ct"], before)


@pytest.mark.parametrize("name", TAUGHT)
def test_resumed_training_is_the_same_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, first, resumed = (make_method(name, PAIRED, seed=s) for s in (0, 0, 1))
    torch.manual_seed(3)
    steps(whole, range(6))
    torch.manual_seed(3)
    steps(first, range(3))
    save_file(first.state_dict(), tmp_path / "half.safetensors")
    random = torch.get_rng_state()
    torch.manual_seed(99)
    resumed.load_state_dict(load_file(tmp_path / "half.safetensors"))
    torch.set_rng_state(random)
    steps(resumed, range(3, 6))
    for (n, a), (_, b) in zip(
        whole.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), n


@pytest.mark.parametrize("name", TAUGHT)
@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_refuses_a_decay_that_is_none(name: str, decay: float) -> None:
    with pytest.raises(UsageError, match=r"method\.decay"):
        make_method(name, PAIRED, decay=decay)
