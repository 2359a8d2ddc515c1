"""Training methods: a file or folder each, all behind the interface `Method`."""

from crossvox.utils.registry import Registry

METHODS = Registry(
    "method",
    "crossvox.methods",
    {
        "bcp": "crossvox.methods.bcp:BCP",
        "cmc": "crossvox.methods.cmc.method:CMC",
        "cmc+": "crossvox.methods.cmc_plus:CMCPlus",
        "cml": "crossvox.methods.cml:CML",
        "efcd": "crossvox.methods.efcd.method:EFCD",
        "mmformer": "crossvox.methods.mmformer.method:MMFormer",
        "self_training": "crossvox.methods.self_training:SelfTraining",
        "sup": "crossvox.methods.sup:Sup",
        "sup_joint": "crossvox.methods.sup:SupJoint",
        "uamt": "crossvox.methods.uamt:UAMT",
        "umml": "crossvox.methods.umml.method:UMML",
    },
)
"""Name on the command line → class; a new method is entered here."""
