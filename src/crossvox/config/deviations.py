"""How a configured run differs from the publication of its method, for the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossvox.config.registry import takes_weights
from crossvox.config.run_config import RunConfig

if TYPE_CHECKING:
    from crossvox.methods.base import Method


def deviations(method: Method, config: RunConfig) -> list[str]:
    """Return every deviation of a run from its method's publication.

    They are what the method says of itself, its options with other values than the published ones,
    the alignment of scans, partners that are left out, and the optimiser.

    Args:
        method: built for the run's data.
        config: the run's.
    """
    found = method.adapted()
    for name, value in method.published.items():
        if (now := config.method[name]) != value and method.has_effect(name):
            found.append(f"{name} {_text(now)} (published: {_text(value)})")
    if method.task.aligned:
        found.append("scans of a subject aligned by a shift")
    needs = method.needs
    drops = "companion" in needs and "every companion" not in needs
    partner = "the partner" if method.task.paired else "a stranger" if "stranger" in needs else ""
    if drops and partner and config.sampling.partner_drop:
        found.append(f"{config.sampling.partner_drop:.0%} of labelled crops without {partner}")
    found.append(_training(config))
    if method.trained:
        found[-1] += f" (published: {method.trained})"
    return found


def _training(config: RunConfig) -> str:
    """Return how a run is optimised."""
    fit = config.fit
    parts = [f"{fit.optimizer} at {_rate(config)}"]
    if fit.weight_decay:
        parts.append(f"weight decay {fit.weight_decay:g}")
    if fit.warmup:
        parts.append(f"warm-up {fit.warmup:.0%}")
    if fit.clip:
        parts.append(f"gradients clipped at {fit.clip:g}")
    return ", ".join([*parts, fit.schedule, f"{fit.steps} steps"])


def _rate(config: RunConfig) -> str:
    """Return the learning rate: of what the weights hold, and of what they lack."""
    fit = config.fit
    if fit.new_lr is None:
        return f"{fit.lr:g}"
    if not config.weights or not takes_weights(config):
        return f"{fit.new_lr:g}"
    return f"{fit.lr:g}, {fit.new_lr:g} for what the weights lack"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
