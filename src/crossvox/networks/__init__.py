"""Backbones and the layers that they are built from."""

from crossvox.networks.backbone import Backbone, Encoder
from crossvox.networks.sam.backbone import SamMed3DBackbone
from crossvox.networks.unet import UNetBackbone
from crossvox.networks.universal.swinunetr import UniversalSwinUNETRBackbone
from crossvox.networks.universal.unet import UniversalUNetBackbone
from crossvox.networks.vnet import VNetBackbone
from crossvox.networks.vnet_ssl import VNetSSLBackbone

BACKBONES: dict[str, type] = {
    "unet": UNetBackbone,
    "universal_unet": UniversalUNetBackbone,
    "universal_swinunetr": UniversalSwinUNETRBackbone,
    "sam_med3d": SamMed3DBackbone,
    "vnet": VNetBackbone,
    "vnet_ssl": VNetSSLBackbone,
}
"""Name on the command line → class; a new backbone is entered here."""

__all__ = [
    "BACKBONES",
    "Backbone",
    "Encoder",
    "SamMed3DBackbone",
    "UNetBackbone",
    "UniversalSwinUNETRBackbone",
    "UniversalUNetBackbone",
    "VNetBackbone",
    "VNetSSLBackbone",
]
