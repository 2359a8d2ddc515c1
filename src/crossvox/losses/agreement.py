"""Agreement of two predictions of the same voxels."""

from __future__ import annotations

from torch import Tensor


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """½ [KL(p‖q) + KL(q‖p)] = ½ Σ_k (p_k − q_k)(log p_k − log q_k), the mean over voxels.

    Args:
        a: (B, K, X, Y, Z) logits of p.
        b: logits of q, the same shape.
    """
    log_p, log_q = a.float().log_softmax(dim=1), b.float().log_softmax(dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean() / 2
