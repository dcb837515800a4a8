"""Readers of single files: images, masks, NIfTI scans and DICOM series."""
