"""The configuration of a run: dataclasses, presets, and the registry of methods and backbones."""
