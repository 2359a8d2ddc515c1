"""Training methods: a file or folder each, all behind the interface `Method`."""

from crossvox.methods.base import Method
from crossvox.methods.bcp import BCP
from crossvox.methods.cmc import CMC
from crossvox.methods.cmc_plus import CMCPlus
from crossvox.methods.cml import CML
from crossvox.methods.efcd import EFCD
from crossvox.methods.mmformer import MMFormer
from crossvox.methods.sup import Sup, SupJoint
from crossvox.methods.uamt import UAMT
from crossvox.methods.umml import UMML

METHODS: dict[str, type[Method]] = {
    "bcp": BCP,
    "cmc": CMC,
    "cmc+": CMCPlus,
    "cml": CML,
    "efcd": EFCD,
    "mmformer": MMFormer,
    "sup": Sup,
    "sup_joint": SupJoint,
    "uamt": UAMT,
    "umml": UMML,
}
"""Name on the command line → class; a new method is entered here."""

__all__ = [
    "BCP",
    "CMC",
    "CML",
    "EFCD",
    "METHODS",
    "UAMT",
    "UMML",
    "CMCPlus",
    "MMFormer",
    "Method",
    "Sup",
    "SupJoint",
]
