"""Read DICOM series as volumes, and write label maps as DICOM segmentations."""
