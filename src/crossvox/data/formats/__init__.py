"""The file formats of scans and label maps: NIfTI, DICOM, and label tables of viewers."""
