"""Semi-supervised, multi-modality 3-D medical image segmentation."""

from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.version import __version__

__all__ = ["Case", "Manifest", "__version__", "load_manifest"]
