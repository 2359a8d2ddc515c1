"""Which scans to label next: where the method is unsure, and what resembles no labelled scan.

Uncertainty is the entropy of the predicted classes (as in Settles, *Active Learning Literature
Survey*, 2009); diversity is the greedy solution of the k-centre problem (Sener and Savarese,
ICLR 2018), on descriptors of the scan and of what was found in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from crossvox.data.prepare.preprocess import PreparedScan

Strategy = Literal["both", "uncertainty", "diverse", "random"]

DECILES = np.linspace(0.05, 0.95, 10)


@dataclass(frozen=True)
class Candidate:
    """A scan that could be labelled.

    Attributes:
        case: id.
        modality: of the scan.
        uncertainty: see `uncertainty`.
        features: (N,) see `describe`.
    """

    case: str
    modality: str
    uncertainty: float = float("nan")
    features: np.ndarray | None = None


@dataclass(frozen=True)
class Ranked:
    """A scan in its place.

    Attributes:
        candidate: the scan.
        distance: from the nearest scan of its modality that is labelled or ranked before it,
            in deviations per feature; NaN if that was not asked for.
    """

    candidate: Candidate
    distance: float


def uncertainty(probabilities: Tensor) -> float:
    """Mean entropy over the voxels predicted to be foreground, from 0 (sure) to 1 (no idea).

    Where there is none, over the hundredth of the voxels that are most likely foreground: a scan
    in which nothing was found is none the method is sure of.

    Args:
        probabilities: (C, X, Y, Z), C > 1, that sum up to 1 over C.
    """
    p = probabilities.flatten(1)
    entropy = -(p * p.clamp_min(1e-12).log()).sum(0) / np.log(len(p))
    region = p.argmax(0) > 0
    if region.any():
        return float(entropy[region].mean())
    likely = (1 - p[0]).topk(max(1, p.shape[1] // 100)).indices
    return float(entropy[likely].mean())


def describe(prepared: PreparedScan, probabilities: Tensor) -> np.ndarray:
    """What tells scans of one modality apart, as a vector.

    The extent of the body in mm, the deciles of its intensities, and for each class the
    logarithm of its volume in mL, its mean intensity and the place of its centre in the body.

    Args:
        prepared: the scan.
        probabilities: (C, X, Y, Z) on the prepared grid.
    """
    low, high = prepared.body_box.astype(int)
    body = prepared.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    features = [*((high - low) * prepared.grid.spacing), *np.quantile(body, DECILES)]
    index = np.stack(np.meshgrid(*map(np.arange, prepared.array.shape), indexing="ij"), -1)
    place = (index - low) / np.maximum(high - low, 1)
    for channel in probabilities[1:].numpy():
        volume = channel.sum() * np.prod(prepared.grid.spacing) / 1000
        weights = channel / max(float(channel.sum()), 1e-6)
        centre = np.tensordot(weights, place, axes=3)
        features += [np.log1p(volume), float((weights * prepared.array).sum()), *centre]
    return np.array(features, dtype=np.float64)


def order(
    candidates: Sequence[Candidate],
    labelled: Mapping[str, Sequence[np.ndarray]],
    strategy: Strategy,
    seed: int = 0,
) -> list[Ranked]:
    """The candidates, the one to label first at the front.

    `uncertainty` orders by that; `diverse` takes again and again the scan that is farthest,
    for its modality, from all labelled and all taken scans; `both` adds the two, each
    divided by its largest value within the modality; `random` draws by the seed.

    Args:
        candidates: with features and uncertainty, unless the strategy is `random`.
        labelled: modality → features of the scans labelled already; where there is none, the
            mean of the modality's candidates stands for it.
        strategy: as above.
        seed: of `random`.
    """
    if strategy == "random":
        drawn = np.random.default_rng(seed).permutation(len(candidates))
        return [Ranked(candidates[i], float("nan")) for i in drawn]
    space = _Space(candidates, labelled)
    unsure = np.array([candidate.uncertainty for candidate in candidates])
    most_unsure, farthest = space.largest(unsure), space.largest(space.distance)
    weight_unsure, weight_far = {"uncertainty": (1, 0), "diverse": (0, 1), "both": (1, 1)}[strategy]
    if strategy == "both":  # entropies and distances have no unit in common
        unsure = unsure / most_unsure
    ranked = []
    left = list(range(len(candidates)))
    while left:
        score = weight_unsure * unsure + weight_far * space.distance / farthest
        best = max(left, key=lambda i: (score[i], -i))
        ranked.append(Ranked(candidates[best], float(space.distance[best])))
        left.remove(best)
        space.take(best)
    return ranked


class _Space:
    """The candidates' features, and how far each lies from what is labelled or taken."""

    def __init__(
        self, candidates: Sequence[Candidate], labelled: Mapping[str, Sequence[np.ndarray]]
    ) -> None:
        self.modalities = np.array([c.modality for c in candidates])
        self.distance = np.full(len(candidates), np.inf)
        self.points: dict[int, np.ndarray] = {}
        for modality in np.unique(self.modalities):
            own = np.flatnonzero(self.modalities == modality)
            features = np.array([candidates[int(i)].features for i in own], dtype=np.float64)
            known = np.array(labelled.get(str(modality), []), dtype=np.float64)
            known = known.reshape(-1, features.shape[1])
            everything = np.concatenate([features, known])
            mean, deviation = everything.mean(0), everything.std(0)
            # A feature that is the same in all scans says nothing, whatever its unit.
            scale = np.where(deviation > 1e-9, deviation, np.inf) * np.sqrt(len(mean))
            centres = (known - mean) / scale if len(known) else np.zeros((1, len(mean)))
            for i, point in zip(own, (features - mean) / scale, strict=True):
                self.points[int(i)] = point
                self.distance[i] = np.linalg.norm(centres - point, axis=1).min()

    def take(self, taken: int) -> None:
        """From now on, the scan of that number is one of the centres."""
        for i in np.flatnonzero(self.modalities == self.modalities[taken]):
            apart = np.linalg.norm(self.points[int(i)] - self.points[taken])
            self.distance[i] = min(self.distance[i], float(apart))

    def largest(self, values: np.ndarray) -> np.ndarray:
        """For each candidate the largest value within its modality, at least a trifle."""
        largest = {m: max(values[self.modalities == m].max(), 1e-9) for m in self.modalities}
        return np.array([largest[m] for m in self.modalities])
