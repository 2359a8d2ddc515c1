"""Loss terms and ramps that several methods share; those of CMC are in `methods/cmc`."""

from crossvox.losses.supervised import supervised_loss

__all__ = ["supervised_loss"]
