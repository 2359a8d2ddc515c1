"""The evidential layers of EFCD: prototypes, and discounting by source and class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CAP = 0.99
"""Largest belief of one prototype; with 1, a single one could rule out a class for good."""

ALPHA, GAMMA, REACH = 0.9, math.sqrt(0.5), 2.0
"""Initial belief at a prototype, inverse width of its neighbourhood, distance from the origin."""

GAIN = 4.0
"""Slope of the reliability in its parameter; with 1 it would hardly move in a short training."""


class EvidentialLayer(nn.Module):
    """Evidence from distances to prototypes: features → log contour function over the classes.

    Prototype i is activated by s_i = α_i exp(−γ_i² ½‖x − w_i‖²). It gives the mass u_ik s_i to
    class k and the rest to ignorance Ω. Dempster's rule over all prototypes has the closed form

        q_k = Π_i (1 − s_i (1 − u_ik)),   q_Ω = Π_i (1 − s_i),   N = Σ_k q_k − (K − 1) q_Ω,

    with the contour function pl(k) = m_k + m_Ω = q_k / N. All is computed in logarithms. Source:
    Denœux, IEEE Trans. SMC A 30, 2000.

    Prototypes start near the axes of the feature space, each in favour of its axis's class. Then
    the features act like logits from the first step. Prototypes drawn at random would all be
    equally far from the small initial features and tell nothing.

    Args:
        classes: K, the background included; also the number of features.
        prototypes: I.
    """

    def __init__(self, classes: int, prototypes: int) -> None:
        super().__init__()
        axis = F.one_hot(torch.arange(prototypes) % classes, classes).float()
        noise = 0.1 * torch.randn(prototypes, classes)
        self.prototypes = nn.Parameter(REACH * axis + noise)
        self.memberships = nn.Parameter(axis + 0.1 * torch.rand(prototypes, classes) + 0.1)
        self.alpha = nn.Parameter(torch.full((prototypes,), math.log(ALPHA / (CAP - ALPHA))))
        self.gamma = nn.Parameter(torch.full((prototypes,), GAMMA))

    def forward(self, features: Tensor) -> Tensor:
        """Combine the evidence of all prototypes by Dempster's rule.

        Args:
            features: (B, K, X, Y, Z).

        Returns:
            log pl, (B, K, X, Y, Z).
        """
        x = features.to(self.prototypes.dtype).movedim(1, -1)
        far = x.square().sum(-1, keepdim=True) + self.prototypes.square().sum(1)
        distance = (far / 2 - x @ self.prototypes.T).clamp_min(0)
        s = CAP * self.alpha.sigmoid() * (-self.gamma.square() * distance).exp()
        u = self.memberships.square()
        u = u / u.sum(1, keepdim=True)
        log_q = torch.stack([_log_product(s, 1 - column) for column in u.unbind(1)], dim=1)
        log_omega = torch.log1p(-s).sum(-1)
        top = log_q.amax(1)
        q = (log_q - top.unsqueeze(1)).exp()
        # Every q_k ≥ q_Ω and the largest is 1, so this sum of what exceeds q_Ω is at least 1.
        omega = (log_omega - top).exp()
        log_n = top + (q.sum(1) - (q.shape[1] - 1) * omega).log()
        return log_q - log_n.unsqueeze(1)


class ContextualDiscounting(nn.Module):
    """Discounting of each source's contour function by its reliability for each class.

    pl'(k) = 1 − β_k + β_k pl(k), with a reliability β per source and class: at 0 the source is
    ignored for this class, at 1 it is taken as it is. The normalised product of the discounted
    contours of several sources is their fusion by Dempster's rule. Source: Huang et al., MICCAI
    2022.

    Args:
        sources: H, the number of modalities.
        classes: K, the background included.
        reliability: initial β, between 0 and 1.
    """

    def __init__(self, sources: int, classes: int, reliability: float) -> None:
        super().__init__()
        start = math.log(reliability / (1 - reliability)) / GAIN
        self.logits = nn.Parameter(torch.full((sources, classes), start))

    def forward(self, log_contour: Tensor, source: int) -> Tensor:
        """Return log pl' of one source's log pl, both (B, K, X, Y, Z)."""
        logit = GAIN * self.logits[source].view(1, -1, 1, 1, 1)
        return torch.logaddexp(F.logsigmoid(-logit), F.logsigmoid(logit) + log_contour)


def _log_product(s: Tensor, doubt: Tensor) -> Tensor:
    """Return Σ_i log(1 − s_i doubt_i) over the last axis.

    The intermediate values, prototypes × classes per voxel, are recomputed for the gradient
    instead of being kept.
    """

    def product(s: Tensor, doubt: Tensor) -> Tensor:
        return torch.log1p(-s * doubt).sum(-1)

    if not torch.is_grad_enabled():
        return product(s, doubt)
    return checkpoint(product, s, doubt, use_reentrant=False, preserve_rng_state=False)
