"""The networks of CMC (Zhou et al., MICCAI 2024, § 2 and figure 1).

    F_ds^m  = E^m(x^m)                     encoder: distinctive semantic features
    F_mia^m = MIA^m(F_ds^m)                modality-independent awareness
    Z       = Fusion(F_mia^a, F_mia^b)     fusion layer
    logits  = D^m(F_mia^m + Z)             decoder, with the encoder's skips

The encoder gives features of all levels, of which F_ds is the deepest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from torch import Tensor, nn

from crossvox.batch import Rows, Task
from crossvox.errors import check_choice, require
from crossvox.methods.cmc.fusion import Fusion
from crossvox.methods.cmc.mia import MIAForm, make_mia
from crossvox.networks.backbone import Backbone, Encoder
from crossvox.utils.rows import both, row_mask

FusionForm = Literal["full", "none"]


class CMCNetworks(nn.Module):
    """E^m, MIA^m and D^m of each modality m, and the fusion between them.

    Rows of different subjects never meet in the fusion. Unpaired data are therefore not fused:
    Z is made of the modality's own features.

    Attributes:
        encoders: E^m, one for each modality, or a single one if shared.
        mias: MIA^m, one for each modality.
        fusion: the fusion layer; None without.
        decoders: D^m, one for each modality, or a single one if shared.
        joint: while True, all modalities pass through the first encoder and the first decoder.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared_encoder: bool = False,
        shared_decoder: bool = False,
        mia: MIAForm = "gate",
        fusion: FusionForm = "full",
        reduction: int = 4,
    ) -> None:
        """Build the networks; those of all modalities start as copies of the first one's.

        Then a channel of F_ds has the same meaning in all modalities from the first step on.
        `CMC` documents the options.
        """
        super().__init__()
        require("method.reduction", reduction, 1)
        check_choice("fusion", fusion, FusionForm)
        self.modalities = task.modalities
        n = len(task.modalities)
        encoder = backbone.encoder()
        channels = cast(Encoder, encoder).channels[-1]
        self.encoders = _copies(encoder, 1 if shared_encoder else n)
        self.mias = _copies(make_mia(mia, channels, reduction), n)
        self.fusion = Fusion(channels, n, reduction) if fusion == "full" else None
        self.decoders = _copies(backbone.decoder(task.n_classes), 1 if shared_decoder else n)
        self.fuses = self.fusion is not None and task.paired
        self.joint = False

    def forward(
        self,
        images: Mapping[str, Tensor],
        same_subject: Mapping[str, Rows],
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Compute logits, fusing the images of one subject.

        Args:
            images: modality → (B, 1, X, Y, Z).
            same_subject: modality → B values; a row's images are fused where they are True in two
                modalities.
            outputs: modalities to segment; None = all given.

        Returns:
            Modality → (B, K + 1, X, Y, Z).
        """
        outputs = list(images) if outputs is None else outputs
        used = [m for m in images if self.fuses or m in outputs]
        features = {m: self.encode(m, images[m]) for m in used}
        return self.decode_all(features, same_subject, outputs)

    def encode(self, modality: str, images: Tensor) -> list[Tensor]:
        """Return the features of all levels, shallow to deep; the last is F_ds."""
        return self._network(self.encoders, modality)(images)

    def awareness(self, modality: str, f_ds: Tensor) -> Tensor:
        """Return F_mia of F_ds."""
        return self.mias[self.modalities.index(modality)](f_ds)

    def decode(
        self,
        modality: str,
        features: list[Tensor],
        f_mia: Mapping[str, Tensor],
        present: Mapping[str, Rows],
    ) -> Tensor:
        """Return the logits of one modality: D^m(F_mia^m + Z).

        Args:
            modality: m.
            features: what `encode` returned for m.
            f_mia: modality → F_mia, at least of m.
            present: other modalities → the rows in which Z includes them. Those that are not
                named are absent.
        """
        own = f_mia[modality]
        if self.fusion is not None:
            absent = (False,) * len(own)
            rows = {**present, modality: (True,) * len(own)}
            columns = [rows.get(m, absent) for m in self.modalities]
            z = self.fusion(
                [f_mia[m] if m in rows else None for m in self.modalities],
                row_mask(list(zip(*columns, strict=True)), own.device),
            )
            own = own + z
        return self._network(self.decoders, modality)([*features[:-1], own])

    def decode_all(
        self,
        features: Mapping[str, list[Tensor]],
        same_subject: Mapping[str, Rows],
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return the logits of several modalities from what `encode` returned for each.

        `same_subject` and `outputs` are as in `forward`; with an empty `same_subject` each
        modality is decoded from its own features.
        """
        f_mia = {m: self.awareness(m, f[-1]) for m, f in features.items()}
        logits = {}
        for m in features if outputs is None else outputs:
            present = {}
            if self.fuses:
                present = {n: both(rows, same_subject[m]) for n, rows in same_subject.items()}
            logits[m] = self.decode(m, features[m], f_mia, present)
        return logits

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return the networks of one modality; see `Method.roles`."""
        index = self.modalities.index(modality)
        fusion = {} if self.fusion is None else {"fusion": self.fusion}
        return {
            "encoder": self.encoders[index % len(self.encoders)],
            "awareness": self.mias[index],
            **fusion,
            "decoder": self.decoders[index % len(self.decoders)],
        }

    def copy_first(self) -> None:
        """Give all encoders and decoders the gradients and buffers of the first one.

        Called before the optimiser's step while `joint`. Then networks that are equal stay equal,
        and so do the optimiser's moments, with which each can go on by itself. Copying weights
        after the step instead would leave the others without moments, or with moments far too
        small where data parallelism fills in zeros for missing gradients.
        """
        for networks in (self.encoders, self.decoders):
            for other in networks[1:]:
                for own, first in zip(other.parameters(), networks[0].parameters(), strict=True):
                    own.grad = None if first.grad is None else first.grad.clone()
                for buffer, kept in zip(other.buffers(), networks[0].buffers(), strict=True):
                    buffer.copy_(kept)

    def _network(self, networks: nn.ModuleList, modality: str) -> nn.Module:
        index = 0 if self.joint else self.modalities.index(modality)
        return networks[index % len(networks)]


def _copies(module: nn.Module, n: int) -> nn.ModuleList:
    """Return the module and n − 1 copies of it."""
    return nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(n - 1))])
