"""Settings of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demo:
    """Settings of the demonstration; the defaults take minutes on two cores.

    Args:
        methods: methods to train, one after the other; `[cmc+,sup]` compares two. The closing lines
            name the first's files.
        steps: training steps of each method.
        patch_voxels: size of a crop in voxels.
        width: channels of the network's first level.
        labelled: labelled cases per modality.
        train: synthetic subjects to train on, per modality unless paired.
        test: synthetic subjects to score.
        paired: give every subject both modalities (not registered).
        seed: seed of the subjects, the weights and the crops.
        shape: voxels of a synthetic CT.
    """

    methods: tuple[str, ...] = ("cmc+",)
    steps: int = 220
    patch_voxels: int = 24_000
    width: int = 8
    labelled: int = 2
    train: int = 10
    test: int = 3
    paired: bool = False
    seed: int = 0
    shape: tuple[int, int, int] = (84, 64, 36)


DEMO = Demo()
