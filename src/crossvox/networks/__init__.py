"""Backbones and the layers that they are built from."""

from crossvox.utils.registry import Registry

BACKBONES = Registry(
    "backbone",
    "crossvox.backbones",
    {
        "unet": "crossvox.networks.unet:UNetBackbone",
        "universal_unet": "crossvox.networks.universal.unet:UniversalUNetBackbone",
        "universal_swinunetr": "crossvox.networks.universal.swinunetr:UniversalSwinUNETRBackbone",
        "sam_med3d": "crossvox.networks.sam.backbone:SamMed3DBackbone",
        "vnet": "crossvox.networks.vnet:VNetBackbone",
        "vnet_ssl": "crossvox.networks.vnet_ssl:VNetSSLBackbone",
    },
)
"""Name on the command line → class; a new backbone is entered here."""
