"""The published models that crossvox recognises, and the licence and data of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Fits = Callable[[Iterable[bool]], bool]


@dataclass(frozen=True)
class PublishedModel:
    """One published model.

    Attributes:
        title: name for messages.
        marks: tensor name → number of axes; every complete file of this model has these tensors.
        absent: tensor names that no file of it has.
        prefixes: possible prefixes of its names in a file; the first that fits is used.
        beside: prefixes of other parts, whose tensors a decoder may need by their full names.
        backbone: the backbone that takes these weights; None = none does.
        licence: licence of the weights.
        saw: the training data of the weights, as far as it matters for scores.
        instead: what to use instead of a model that no backbone takes.
    """

    title: str
    marks: Mapping[str, int]
    absent: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("",)
    beside: tuple[str, ...] = ()
    backbone: str | None = None
    licence: str = "unknown; see where the file comes from"
    saw: str = "unknown; see where the file comes from"
    instead: str = ""

    def prefix(self, tensors: Mapping[str, Tensor], fits: Fits = all) -> str | None:
        """Return the prefix under which `tensors` are this model's; None if they are not.

        Args:
            tensors: the tensors of a file.
            fits: `all` or `any` of the marks must be there.
        """
        for prefix in self.prefixes:
            found = fits(
                prefix + name in tensors and tensors[prefix + name].ndim == rank
                for name, rank in self.marks.items()
            )
            if found and not any(prefix + name in tensors for name in self.absent):
                return prefix
        return None


_SAM = ("image_encoder.", "")
_SAM_INSTEAD = "take SAM-Med3D's own file, sam_med3d_turbo.pth"
_UNET = {"down_tr64.ops.0.conv1.weight": 5, "down_tr512.ops.1.conv1.weight": 5}
_SWIN = {"swinViT.patch_embed.proj.weight": 5, "encoder10.layer.conv1.conv.weight": 5}

PUBLISHED: dict[str, PublishedModel] = {
    "sam_med3d": PublishedModel(
        "SAM-Med3D (ViT-B)",
        {"pos_embed": 5, "patch_embed.proj.weight": 5, "blocks.0.attn.rel_pos_d": 2},
        prefixes=_SAM,
        beside=("prompt_encoder.", "mask_decoder."),
        backbone="sam_med3d",
        licence="Apache-2.0",
        saw="many public sets with their labels; its authors list AMOS 2022 first, not saying "
        "which cases: no score on AMOS is clean",
    ),
    "universal_unet": PublishedModel(
        "CLIP-Driven Universal Model, U-Net",
        _UNET,
        absent=("out_tr.final_conv.weight",),
        prefixes=("backbone.", ""),
        backbone="universal_unet",
        licence="CC BY-NC-ND 4.0: not commercial, no changed copies to be passed on",
        saw="labelled CTs of public sets, AMOS among them: its lists hold all 200 of AMOS's "
        "training CTs (145 to train on, 23 to validate, 32 to test): no score on AMOS is clean",
    ),
    "models_genesis": PublishedModel(
        "Models Genesis, U-Net",
        {**_UNET, "out_tr.final_conv.weight": 5},
        backbone="universal_unet",
        saw="chest CTs without labels (self-supervised); no abdominal label",
    ),
    "universal_swinunetr": PublishedModel(
        "CLIP-Driven Universal Model, SwinUNETR",
        _SWIN,
        absent=("out.conv.conv.weight",),
        prefixes=("backbone.", ""),
        backbone="universal_swinunetr",
        licence="CC BY-NC-ND 4.0: not commercial, no changed copies to be passed on",
        saw="as the Universal Model's U-Net: all 200 of AMOS's training CTs among labelled CTs of "
        "public sets: no score on AMOS is clean",
    ),
    # The same names, but probably another order in patch merging, which no tensor shows.
    "swinunetr": PublishedModel(
        "SwinUNETR with a head, not the Universal Model's",
        {**_SWIN, "out.conv.conv.weight": 5},
        instead="take the Universal Model's own file, whose backbone is universal_swinunetr",
    ),
    "sam": PublishedModel(
        "SAM, for 2-D images",
        {"pos_embed": 4, "patch_embed.proj.weight": 4},
        prefixes=_SAM,
        instead=_SAM_INSTEAD,
    ),
    "fastsam3d": PublishedModel(
        "FastSAM3D (a 3-D SAM whose first blocks have no attention)",
        {"patch_embed.proj.weight": 5, "neck.0.weight": 5},
        absent=("blocks.0.attn.qkv.weight",),
        prefixes=_SAM,
        instead=_SAM_INSTEAD,
    ),
}
"""Key → model; a file is of the first that fits."""


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Find the model that a file's tensors belong to.

    If no model has all of its marks there, one mark is enough. The file then lacks tensors, which
    can be named once the model is known.

    Returns:
        Key in `PUBLISHED` and prefix of the names; None if no model fits.
    """
    for fits in (all, any):
        for key, model in PUBLISHED.items():
            prefix = model.prefix(tensors, fits)
            if prefix is not None:
                return key, prefix
    return None
