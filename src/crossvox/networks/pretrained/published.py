"""The published models whose files crossvox recognises, and what is known of their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

Fits = Callable[[Iterable[bool]], bool]


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        title: what people call it.
        marks: tensor → number of its axes; what all whole files of this model have.
        absent: tensors that no file of it has.
        prefixes: what may stand before these names in a file; the first that fits counts.
        beside: beginnings of other parts' names, which a decoder may ask for by their whole names.
        backbone: the backbone that takes these weights; None = none does.
        licence: of the weights.
        saw: the data that the weights were trained on, as far as it matters for scores.
        instead: for a model that no backbone takes, what to do.
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
        """The prefix under which `tensors` are this model's; None if they are another's.

        Args:
            tensors: of a file.
            fits: whether `all` or `any` of the marks must be there.
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

PUBLISHED: dict[str, Published] = {
    "sam_med3d": Published(
        "SAM-Med3D (ViT-B)",
        {"pos_embed": 5, "patch_embed.proj.weight": 5, "blocks.0.attn.rel_pos_d": 2},
        prefixes=_SAM,
        beside=("prompt_encoder.", "mask_decoder."),
        backbone="sam_med3d",
        licence="Apache-2.0",
        saw="many public sets with their labels; its authors list AMOS 2022 first, not saying "
        "which cases: no score on AMOS is clean",
    ),
    "universal_unet": Published(
        "CLIP-Driven Universal Model, U-Net",
        _UNET,
        absent=("out_tr.final_conv.weight",),
        prefixes=("backbone.", ""),
        backbone="universal_unet",
        licence="CC BY-NC-ND 4.0: not commercial, no changed copies to be passed on",
        saw="labelled CTs of public sets, AMOS among them: its lists hold all 200 of AMOS's "
        "training CTs (145 to train on, 23 to validate, 32 to test): no score on AMOS is clean",
    ),
    "models_genesis": Published(
        "Models Genesis, U-Net",
        {**_UNET, "out_tr.final_conv.weight": 5},
        backbone="universal_unet",
        saw="chest CTs without labels (self-supervised); no abdominal label",
    ),
    "universal_swinunetr": Published(
        "CLIP-Driven Universal Model, SwinUNETR",
        _SWIN,
        absent=("out.conv.conv.weight",),
        prefixes=("backbone.", ""),
        backbone="universal_swinunetr",
        licence="CC BY-NC-ND 4.0: not commercial, no changed copies to be passed on",
        saw="as the Universal Model's U-Net: all 200 of AMOS's training CTs among labelled CTs of "
        "public sets: no score on AMOS is clean",
    ),
    # The same names, but most likely another order of merging patches, which no tensor shows.
    "swinunetr": Published(
        "SwinUNETR with a head, not the Universal Model's",
        {**_SWIN, "out.conv.conv.weight": 5},
        instead="take the Universal Model's own file, whose backbone is universal_swinunetr",
    ),
    "sam": Published(
        "SAM, for 2-D images",
        {"pos_embed": 4, "patch_embed.proj.weight": 4},
        prefixes=_SAM,
        instead=_SAM_INSTEAD,
    ),
    "fastsam3d": Published(
        "FastSAM3D (a 3-D SAM whose first blocks have no attention)",
        {"patch_embed.proj.weight": 5, "neck.0.weight": 5},
        absent=("blocks.0.attn.qkv.weight",),
        prefixes=_SAM,
        instead=_SAM_INSTEAD,
    ),
}
"""Key → model; the first that fits a file is it."""


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """(Key in `PUBLISHED`, prefix of its names) of a file's tensors; None if none fits.

    If no model has all of its marks there, one has to do: the file lacks tensors then, and
    which ones can be said once it is known whose they are.
    """
    for fits in (all, any):
        for key, model in PUBLISHED.items():
            prefix = model.prefix(tensors, fits)
            if prefix is not None:
                return key, prefix
    return None
