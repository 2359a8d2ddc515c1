"""CMC: the losses and the training step (Zhou et al., MICCAI 2024, § 2.2).

    L_total = L_Sup + α · L_CSC + β · L_CAC

L_Sup is eq. 2, L_CSC eq. 1, L_CAC eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, LabelledView, Rows, Task, View
from crossvox.errors import check_choice, require
from crossvox.losses.distributed import world_size
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.cmc.cac import CACForm, CACLoss
from crossvox.methods.cmc.csc import CSCForm, CSCLoss
from crossvox.methods.cmc.mia import MIAForm
from crossvox.methods.cmc.networks import CMCNetworks, Features, FusionForm
from crossvox.methods.cmc.schedules import ScheduleForm, ramp_down, ramp_up
from crossvox.networks.backbone import Backbone, deepest_grid
from crossvox.utils.rows import either

CACPredictions = Literal["own", "fused"]
SupForm = Literal["both", "literal"]


class CMC(Method):
    """Cross-modality collaboration with channel and anatomy consistency.

    Each modality has an encoder, an awareness module and a decoder, which gets the fusion of what
    a subject has beside the modality's own features (`CMCNetworks`). Labelled crops train by
    cross-entropy and Dice (eq. 2). On unlabelled crops, feature channels (`CSCLoss`, eq. 1) and
    predicted anatomy (`CACLoss`, eq. 3) are to agree between modalities, averaged over pairs.

    Examples:
        >>> method = CMC(task, UNetBackbone(task))
        >>> sorted(method(batch, progress=0.5))
        ['alpha', 'beta', 'cac', 'csc', 'csc_content', 'csc_shuffled', 'loss', 'sup']
    """

    name = "cmc"
    summary = "cross-modality collaboration: fused features, channel and anatomy consistency"
    needs = frozenset({"unlabelled", "companion"})
    adaptation = "sizes of MIA and fusion are ours, as none is printed"
    published: ClassVar[Mapping[str, Any]] = {
        "balance": 0.0,
        "sup": "literal",
        "cac": "literal",
        "mia": "softmax",
        "fusion": "deepest",
        "fuse_strangers": True,
        "shared_encoder": False,
        "cac_predictions": "fused",
        "alpha": 0.1,
        "beta": 0.1,
        "schedule": "paper",
    }
    trained = "Adam at 1e-5, from published weights"

    # One keyword per choice of the method is what the command line and the paper's ablations
    # address; bundling them would only hide the number.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared_encoder: bool = False,
        mia: MIAForm = "gate",
        fusion: FusionForm = "levels",
        fuse_strangers: bool = False,
        reduction: int = 4,
        sup: SupForm = "both",
        balance: float = 0.5,
        csc: CSCForm | Literal["none"] | None = None,
        tau_csc: float = 0.1,
        cac: CACForm | Literal["none"] = "nt-xent",
        cac_predictions: CACPredictions = "fused",
        tau_cac: float = 0.2,
        alpha: float = 0.1,
        beta: float = 0.1,
        schedule: ScheduleForm = "paper",
    ) -> None:
        """Build the networks; those of all modalities start as copies of the first one's.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            shared_encoder: use one encoder for all modalities (ablation of table 2).
            mia: awareness module: "gate" (gated attention), "softmax" (the same with a softmax over
                channels), "danet" (channel attention) or "none".
            fusion: "levels" fuses F_mia and the skips, "deepest" F_mia alone; "none" decodes each
                modality from its own features alone.
            fuse_strangers: train the fusion of a scan without a partner with the crop of another
                subject at the same position, as figure 1 draws it. Predictions never hold another
                subject.
            reduction: divides the channels inside awareness and the deepest fusion.
            sup: "both" (CE + Dice in every modality) or "literal" (CE in the first modality, Dice
                in the others, as eq. 2 is printed).
            balance: how much cross-entropy favours small classes, from 0 (not at all, as printed)
                to 1.
            csc: "content", "infonce", "literal" (eq. 1 as printed) or "none"; see `CSCLoss`. None =
                "content" if scans of one subject lie over each other, else "infonce": crops of
                different subjects share little but their place.
            tau_csc: temperature of CSC.
            cac: "nt-xent", "literal" (the sum of eq. 3 as printed) or "none".
            cac_predictions: compare in CAC the predictions from "fused" features, as figure 1 draws
                it, or from each modality's "own" ones. Between different subjects both are alike,
                unless strangers are fused.
            tau_cac: temperature of CAC.
            alpha: weight of CSC at the end of training.
            beta: weight of CAC at its start.
            schedule: "paper", "squared" (exponents squared) or "constant".
        """
        super().__init__(task, backbone)
        require("method.balance", balance, 0, 1)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            require(f"method.{name}", weight, 0)
        for name, tau in (("tau_csc", tau_csc), ("tau_cac", tau_cac)):
            require(f"method.{name}", tau, 1e-3)
        check_choice("sup", sup, SupForm)
        check_choice("cac_predictions", cac_predictions, CACPredictions)
        check_choice("schedule", schedule, ScheduleForm)
        self.networks = CMCNetworks(
            task,
            backbone,
            shared_encoder=shared_encoder,
            mia=mia,
            fusion=fusion,
            reduction=reduction,
        )
        self.fuse_strangers = fuse_strangers
        if fuse_strangers and fusion != "none":
            self.needs = self.needs | {"stranger"}
        single = len(task.modalities) == 1  # nothing to be consistent with
        csc = csc or ("content" if task.overlaid else "infonce")
        self.csc = None if csc == "none" or single else CSCLoss(tau_csc, csc)
        self.cac = None if cac == "none" or single else CACLoss(tau_cac, cac)
        if self.csc is not None:
            self.csc.check(deepest_grid(self.networks.encoders[0], task.patch))
        self.literal_sup = sup == "literal"
        self.balance = 0.0 if self.literal_sup else balance
        self.fused_cac = cac_predictions == "fused"
        self.alpha, self.beta, self.schedule = alpha, beta, schedule

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute L_total and its terms "sup", "csc" and "cac"; see `Method.forward`.

        Only logged are "alpha" and "beta", the current weights; "csc_shuffled" and "csc_content",
        which tell whether CSC matches positions or content (`CSCLoss.controls`); and
        "cac_fallback", 1 if CAC has a single crop and hence no negatives.
        """
        net, parts, l_sup = self.networks, {}, []
        for m, view in batch.labelled_views().items():
            rows = self._fused_rows(m, view)
            f_mia = net.aware(net.encode(view.images, rows))
            z = net.fuse(m, f_mia, rows)
            l_sup.append(self._l_sup(m, net.decode(m, f_mia, z), view))
        if l_sup:
            parts["sup"] = torch.stack(l_sup).sum() / (1 if self.literal_sup else len(l_sup))
        if batch.unlabelled is not None and self.uses_unlabelled:
            f_ds = net.encode(batch.unlabelled.images)
            parts |= self._l_csc(f_ds, batch.unlabelled)
            parts |= self._l_cac(net.aware(f_ds), batch.unlabelled)
        if not parts:
            raise ValueError(f"step {batch.step} has no crop to train on")
        return self._l_total(parts, batch.unlabelled, progress)

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Fuse all given images if training fused; see `Method.predict`."""
        outputs = self.requested(images, outputs)
        if not self.fuses:
            return self.networks({m: images[m] for m in outputs}, {})
        return self.networks(images, {m: (True,) * len(x) for m, x in images.items()}, outputs)

    def adapted(self) -> list[str]:
        """Return also what depends on how scans lie."""
        found, several = [self.adaptation], len(self.task.modalities) > 1
        if several:
            found.append("modalities begin as copies; mean over modalities for the sum")
        if self.networks.fusion is not None:
            found.append("decoders get half of F + Z, Z from the mean")
            if several and not self.task.paired:
                found.append("predictions never hold another subject")
        found += self._adapted_consistency() if several else []
        return found

    def _adapted_consistency(self) -> list[str]:
        """Return what `adapted` says of CSC and CAC."""
        found, form = [], "none" if self.csc is None else self.csc.form
        if form != "literal":
            found.append(f"csc {form} (published: literal)")
        terms = [name for name, loss in (("CSC", self.csc), ("CAC", self.cac)) if loss is not None]
        if terms:
            found.append(f"temperature in {' and '.join(terms)} ours, as none is printed")
        if self.csc is not None:
            found.append("CSC on unlabelled crops alone")
        if terms and not self.task.paired:
            found.append("unlabelled crops matched by position")
        pooled = [name for name in terms if name == "CAC" or form != "literal"]
        if pooled and not self.task.registered:
            found.append(f"{' and '.join(pooled)} of pooled crops")
        return found

    def has_effect(self, option: str) -> bool:
        """Return False for what needs another modality, another subject or another L_Sup."""
        several = len(self.task.modalities) > 1
        if option == "fuse_strangers":
            return several and not self.task.paired and self.networks.fusion is not None
        if option == "balance":
            return not self.literal_sup
        return several or option in ("mia", "fusion")

    @property
    def fuses(self) -> bool:
        """Whether the fusion ever holds more than one modality."""
        return self.networks.fusion is not None and (self.task.paired or self.fuse_strangers)

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return E^m, MIA^m, the fusion layer and D^m."""
        return self.networks.roles(modality)

    @property
    def uses_unlabelled(self) -> bool:
        """True unless both consistency losses are off."""
        return self.csc is not None or self.cac is not None

    def cac_ramp(self, view: View | None, progress: float) -> float | Tensor:
        """Return the factor of β in a step; `view` holds its unlabelled crops."""
        return ramp_down(self.schedule, progress)

    def _fused_rows(self, modality: str, view: View) -> Mapping[str, Rows]:
        """Return the rows of each modality that may meet in Z of `modality`."""
        if not self.fuses:
            return {modality: (True,) * len(view)}
        if not self.fuse_strangers:
            return view.same_subject
        return {m: either(same, view.strangers[m]) for m, same in view.same_subject.items()}

    def _l_sup(self, modality: str, logits: Tensor, view: LabelledView) -> Tensor:
        """Compute L_Sup (eq. 2) of one modality."""
        first = modality == self.task.modalities[0]
        return supervised_loss(
            logits,
            view.label,
            view.annotated,
            ce=first or not self.literal_sup,
            dice=not (first and self.literal_sup),
            balance=self.balance,
        )

    def _l_total(
        self, parts: dict[str, Tensor], view: View | None, progress: float
    ) -> dict[str, Tensor]:
        """Compute L_total = L_Sup + α · L_CSC + β · L_CAC of the terms that there are."""
        alpha = self.alpha * ramp_up(self.schedule, progress)
        beta = self.beta * self.cac_ramp(view, progress)
        weights = {"sup": 1.0, "csc": alpha, "cac": beta}
        loss = self.total_loss([weights[name] * parts[name] for name in weights if name in parts])
        for name, term in (("alpha", "csc"), ("beta", "cac")):
            if term in parts:
                parts[name] = loss.new_zeros(()) + weights[term]
        return {"loss": loss, **parts}

    def _l_csc(self, f_ds: Features, view: View) -> dict[str, Tensor]:
        """Compute L_CSC (eq. 1), and for the log its controls."""
        if self.csc is None:
            return {}
        deepest, registered = [levels[-1] for levels in f_ds.values()], self._registered(view)
        csc = self.csc(deepest, registered, view.one_subject)
        return {"csc": csc, **self.csc.controls(deepest, registered)}

    def _l_cac(self, f_mia: Features, view: View) -> dict[str, Tensor]:
        """Compute L_CAC (eq. 3)."""
        if self.cac is None:
            return {}
        logits = []
        for m in f_mia:
            rows = self._fused_rows(m, view) if self.fused_cac else {}
            z = self.networks.fuse(m, f_mia, rows)
            logits.append(self.networks.decode(m, f_mia, z))
        parts = {"cac": self.cac(logits, self._registered(view))}
        if len(view) * world_size() == 1:
            parts["cac_fallback"] = parts["cac"].new_ones(())
        return parts

    def _registered(self, view: View) -> Rows | bool:
        """Return the rows whose voxels correspond across modalities."""
        return view.one_subject if self.task.registered else False
