"""Semi-supervised, multi-modality 3-D medical image segmentation.

The public names are imported on first use, so that `import crossvox` does not load torch. See
docs/guides/library.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from crossvox.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` imports the names
    from crossvox.batch import Batch as Batch
    from crossvox.batch import LabelledView as LabelledView
    from crossvox.batch import Task as Task
    from crossvox.batch import View as View
    from crossvox.data.formats.nifti import Volume as Volume
    from crossvox.data.manifest import Case as Case
    from crossvox.data.manifest import Manifest as Manifest
    from crossvox.data.manifest import load_manifest as load_manifest
    from crossvox.errors import CrossvoxError as CrossvoxError
    from crossvox.errors import DataError as DataError
    from crossvox.errors import UsageError as UsageError
    from crossvox.inference.ensemble import Prediction as Prediction
    from crossvox.losses import supervised_loss as supervised_loss
    from crossvox.methods.base import Method as Method
    from crossvox.methods.cmc import CMC as CMC
    from crossvox.methods.cmc import MIA as MIA
    from crossvox.methods.cmc import CACLoss as CACLoss
    from crossvox.methods.cmc import CSCLoss as CSCLoss
    from crossvox.methods.cmc import Fusion as Fusion
    from crossvox.networks.unet import UNetBackbone as UNetBackbone
    from crossvox.workflows.prediction.options import Options as Options
    from crossvox.workflows.prediction.options import Outputs as Outputs
    from crossvox.workflows.prediction.predictor import Predictor as Predictor
    from crossvox.workflows.show import show as show

_MODULES = {
    "batch": ["Batch", "LabelledView", "Task", "View"],
    "data.formats.nifti": ["Volume"],
    "data.manifest": ["Case", "Manifest", "load_manifest"],
    "errors": ["CrossvoxError", "DataError", "UsageError"],
    "inference.ensemble": ["Prediction"],
    "losses": ["supervised_loss"],
    "methods.base": ["Method"],
    "methods.cmc": ["CMC", "MIA", "CACLoss", "CSCLoss", "Fusion"],
    "networks.unet": ["UNetBackbone"],
    "workflows.prediction.options": ["Options", "Outputs"],
    "workflows.prediction.predictor": ["Predictor"],
    "workflows.show": ["show"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


if not TYPE_CHECKING:  # else type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'crossvox' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"crossvox.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
