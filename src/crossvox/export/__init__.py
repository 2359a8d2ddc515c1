"""Export of a trained run to the formats of other software: MONAI bundles and ONNX."""
