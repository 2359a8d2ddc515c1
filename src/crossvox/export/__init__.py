"""A trained run in the formats of other software: MONAI bundles and ONNX."""
