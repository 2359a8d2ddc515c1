"""The part of a NIfTI header that places the voxels, as users choose it."""

from typing import Literal

Form = Literal["auto", "qform", "sform"]
"""Which part of a header places the voxels: as the rule says, or this one whatever its code is."""
