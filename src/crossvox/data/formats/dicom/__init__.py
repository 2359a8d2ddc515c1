"""DICOM series in, DICOM segmentations out."""
