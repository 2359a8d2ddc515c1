"""Loss terms and ramps that several methods share; those of CMC are in `methods/cmc`."""

from crossvox.losses.components import largest_components
from crossvox.losses.distributed import gather_rows, world_size
from crossvox.losses.pseudo_labels import class_balanced_labels, soft_label_loss
from crossvox.losses.ramps import sigmoid_rampup
from crossvox.losses.supervised import supervised_loss

__all__ = [
    "class_balanced_labels",
    "gather_rows",
    "largest_components",
    "sigmoid_rampup",
    "soft_label_loss",
    "supervised_loss",
    "world_size",
]
