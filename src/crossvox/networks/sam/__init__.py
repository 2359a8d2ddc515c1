"""SAM-Med3D: image encoder, prompt encoder and mask decoder."""
