"""Network parts: backbones, modality-independent awareness, fusion."""
