"""NIfTI files: a reader that trusts no header, and writers that keep a scan's geometry."""

from crossvox.data.formats.nifti.geometry import Form
from crossvox.data.formats.nifti.reader import NiftiFile, NiftiHeader, as_nifti, read_nifti
from crossvox.data.formats.nifti.scans import (
    Scan,
    Volume,
    as_image,
    as_volume,
    label_indices,
    open_scan,
    raw_volume,
    read_header,
    read_image,
    read_label,
)
from crossvox.data.formats.nifti.writer import (
    header_like,
    is_as_written,
    read_origin,
    write_label,
    write_volume,
)

__all__ = [
    "Form",
    "NiftiFile",
    "NiftiHeader",
    "Scan",
    "Volume",
    "as_image",
    "as_nifti",
    "as_volume",
    "header_like",
    "is_as_written",
    "label_indices",
    "open_scan",
    "raw_volume",
    "read_header",
    "read_image",
    "read_label",
    "read_nifti",
    "read_origin",
    "write_label",
    "write_volume",
]
