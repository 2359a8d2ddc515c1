"""Training methods, one file each, behind the `Method` interface."""

from crossvox.methods.base import Method
from crossvox.methods.cmc import CMC
from crossvox.methods.efcd import EFCD
from crossvox.methods.sup import Sup, SupJoint
from crossvox.methods.umml import UMML

METHODS: dict[str, type[Method]] = {
    "cmc": CMC,
    "efcd": EFCD,
    "sup": Sup,
    "sup_joint": SupJoint,
    "umml": UMML,
}
"""Name on the command line → class; a new method is entered here."""

__all__ = ["METHODS", "Method"]
