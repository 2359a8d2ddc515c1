"""SAM-Med3D (Wang et al., 2023): image encoder with adapters, two decoders."""
