"""CMC: cross-modality collaboration and contrastive consistency (Zhou et al., MICCAI 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from crossvox.batch import Batch, Task, View
from crossvox.errors import check_choice, require
from crossvox.losses.distributed import gather_rows, world_size
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.cmc.cac import CACForm, CACLoss
from crossvox.methods.cmc.csc import CSCForm, CSCLoss
from crossvox.methods.cmc.mia import MIAForm
from crossvox.methods.cmc.networks import CMCNetworks, FusionForm
from crossvox.methods.cmc.schedules import ScheduleForm, ramp_down, ramp_up
from crossvox.networks.backbone import Backbone, deepest_grid

CSCOn = Literal["unlabelled", "all"]
CACPredictions = Literal["own", "fused"]
SupForm = Literal["both", "literal"]


class CMC(CMCNetworks):
    """Encoder, awareness module and decoder per modality, joined by a fusion of what is given.

    Each decoder receives its modality's features F after awareness, plus the fusion Z of all
    modalities that the subject has on this grid. Loss = Sup + α·CSC + β·CAC: cross-entropy and
    Dice on labelled crops, and on unlabelled ones the consistency of feature channels and of
    predicted anatomy between modalities, averaged over pairs of these.
    """

    name = "cmc"
    summary = "cross-modality collaboration: fused features, channel and anatomy consistency"
    needs = frozenset({"unlabelled", "companion"})
    adaptation = "crops matched by position; one crop's fusion never holds another subject"

    # One keyword per choice of the method is what the command line and the paper's ablations
    # address; bundling them would only hide the number.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared_encoder: bool = False,
        shared_decoder: bool = False,
        joint: float = 0.0,
        mia: MIAForm = "gate",
        fusion: FusionForm = "full",
        reduction: int = 1,
        sup: SupForm = "both",
        balance: float = 0.5,
        csc: CSCForm | Literal["none"] = "infonce",
        csc_on: CSCOn = "unlabelled",
        tau_csc: float = 0.1,
        cac: CACForm | Literal["none"] = "nt-xent",
        cac_predictions: CACPredictions = "own",
        tau_cac: float = 0.2,
        alpha: float = 0.1,
        beta: float = 0.1,
        schedule: ScheduleForm = "paper",
        cac_lasts: bool = False,
    ) -> None:
        """Build the networks; those of all modalities start as copies of the first one's.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            shared_encoder: one encoder for all modalities (the paper's ablation).
            shared_decoder: one decoder for all modalities.
            joint: share of the training in which all modalities pass the first one's encoder and
                decoder; then each goes on with a copy, optimiser moments included. Awareness
                modules are apart throughout. A training loop must call `before_step`.
            mia: awareness: "gate" (gated attention), "danet" (channel attention) or "none".
            fusion: "full", or "none" to decode each modality from its own features alone.
            reduction: divides the channels inside awareness and fusion; 1 is the paper's size.
            sup: "both" (CE + Dice in every modality) or "literal" (CE in the first, Dice in the
                others, as eq. 2 prints).
            balance: how much cross-entropy favours small classes, 0 (not; as printed) to 1.
            csc: "infonce", "literal" (eq. 1 as printed) or "none".
            csc_on: crops for CSC: "unlabelled", or "all" to add labelled ones whose subject has
                the other modality on the same grid.
            tau_csc: temperature of CSC.
            cac: "nt-xent", "literal" (eq. 3 as printed) or "none".
            cac_predictions: decode CAC's predictions from "own" features, or "fused" where the
                crops are of one subject (one Z could then satisfy the loss by itself).
            tau_cac: temperature of CAC.
            alpha: weight of CSC at the end of training.
            beta: weight of CAC at its start.
            schedule: "paper", "squared" (exponents squared) or "constant".
            cac_lasts: CAC keeps its weight between scans of one subject that lie over each other
                (aligned or registered), which show one anatomy; it falls between those of
                different subjects. A step's weight is the mean over its crops.
        """
        require("method.balance", balance, 0, 1)
        check_choice("sup", sup, SupForm)
        check_choice("csc_on", csc_on, CSCOn)
        check_choice("cac_predictions", cac_predictions, CACPredictions)
        check_choice("schedule", schedule, ScheduleForm)
        super().__init__(
            task,
            backbone,
            shared_encoder=shared_encoder,
            shared_decoder=shared_decoder,
            joint=joint,
            mia=mia,
            fusion=fusion,
            reduction=reduction,
        )
        modalities = len(task.modalities)
        self.csc = None if csc == "none" or modalities == 1 else CSCLoss(tau_csc, csc)
        self.cac = None if cac == "none" or modalities == 1 else CACLoss(tau_cac, cac)
        if self.csc is not None:
            self.csc.check(deepest_grid(self.encoders[0], task.patch))
        self.literal_sup = sup == "literal"
        self.balance = 0.0 if self.literal_sup else balance
        self.csc_on_all = self.csc is not None and csc_on == "all"
        self.fused_cac = cac_predictions == "fused"
        self.alpha, self.beta, self.schedule = alpha, beta, schedule
        known = task.aligned or task.registered
        self.cac_lasts = cac_lasts and known and self.cac is not None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses "sup", "csc" and "cac" with their weights; see `Method.forward`.

        For the log only: "alpha" and "beta", the current weights; "csc_shuffled", CSC between
        crops that do not match (if it equals "csc", the features tell positions apart, not
        content); "cac_fallback", 1 if CAC has a single crop and hence no negatives.
        """
        self._begin(progress)
        parts: dict[str, Tensor] = {}
        sup, pairs = self._supervised(batch)
        if sup is not None:
            parts["sup"] = sup
        if batch.unlabelled is not None and (self.csc or self.cac):
            parts |= self._unsupervised(batch.unlabelled, pairs)
        if not parts:
            raise ValueError(f"step {batch.step} has no crop to train on")
        weights = {
            "sup": 1.0,
            "csc": self.alpha * ramp_up(self.schedule, progress),
            "cac": self.beta * self._cac_left(batch.unlabelled, progress),
        }
        loss = self._total([weights[name] * parts[name] for name in weights if name in parts])
        for name, term in (("alpha", "csc"), ("beta", "cac")):
            if term in parts:
                parts[name] = loss.new_tensor(weights[term])
        return {"loss": loss, **parts}

    @property
    def uses_unlabelled(self) -> bool:
        """Not without both consistencies; see `Method.uses_unlabelled`."""
        return self.csc is not None or self.cac is not None

    def _cac_left(self, view: View | None, progress: float) -> float:
        """What is left of CAC's weight, the mean over the crops of all processes."""
        scheduled = ramp_down(self.schedule, progress)
        if view is None or not self.cac_lasts:
            return scheduled
        of_one = gather_rows(self._of_one(view).float())
        return scheduled + (1 - scheduled) * float(of_one.mean())

    def _of_one(self, view: View) -> Tensor:
        """(B,) bool, whether all modalities of a row are one subject's."""
        return torch.stack([view.same[m] for m in self.task.modalities]).all(dim=0)

    def _supervised(self, batch: Batch) -> tuple[Tensor | None, list[list[Tensor]]]:
        """The supervised loss, and the deepest features of crops that show the same anatomy."""
        terms, pairs = [], []
        for m, view in batch.labelled.items():
            if view.label is None or not len(view.label):
                continue
            features = self._encode(m, view.images[m])
            aware, present = {m: self._aware(m, features)}, {}
            for n, rows in self._companions(m, view):
                other = self._encode(n, view.images[n][rows])
                pairs.append([features[-1][rows], other[-1]])
                places = torch.zeros_like(aware[m])
                aware[n] = places.index_copy(0, rows, self._aware(n, other))
                present[n] = view.same[n]
            logits = self._decode(m, features, aware, present)
            terms.append(self._compare(m, logits, view))
        if not terms:
            return None, pairs
        together = torch.stack(terms)
        return together.sum() if self.literal_sup else together.mean(), pairs

    def _compare(self, modality: str, logits: Tensor, view: View) -> Tensor:
        assert view.label is not None
        first = modality == self.task.modalities[0]
        return supervised_loss(
            logits,
            view.label,
            view.annotated,
            ce=first or not self.literal_sup,
            dice=not (first and self.literal_sup),
            balance=self.balance,
        )

    def _companions(self, modality: str, view: View) -> Iterator[tuple[str, Tensor]]:
        """Other modalities that some rows have too, and which rows; only what is of use."""
        if not self.task.paired or not (self._fuses or self.csc_on_all):
            return
        for other, same in view.same.items():
            rows = same.nonzero().squeeze(1)
            if other != modality and len(rows):
                yield other, rows

    def _unsupervised(self, view: View, pairs: list[list[Tensor]]) -> dict[str, Tensor]:
        """CSC and CAC between all modalities of the unlabelled crops."""
        parts: dict[str, Tensor] = {}
        features = {m: self._encode(m, view.images[m]) for m in self.task.modalities}
        registered = self._of_one(view) if self.task.registered else False
        if self.csc is not None:
            deepest = [f[-1] for f in features.values()]
            parts["csc"] = self._consistency(deepest, registered, pairs)
            if len(deepest[0]) > 1:
                parts["csc_shuffled"] = self._shuffled(deepest, registered)
        if self.cac is not None:
            aware = {m: self._aware(m, f) for m, f in features.items()}
            same = view.same if self.fused_cac else {}
            logits = [self._decode_matched(m, f, aware, same) for m, f in features.items()]
            parts["cac"] = self.cac(logits, registered)
            if len(logits[0]) * world_size() == 1:
                parts["cac_fallback"] = parts["cac"].new_ones(())
        return parts

    def _consistency(
        self, deepest: list[Tensor], registered: Tensor | bool, pairs: list[list[Tensor]]
    ) -> Tensor:
        """CSC of the unlabelled crops, or the mean over these and the labelled pairs."""
        assert self.csc is not None
        unlabelled = self.csc(deepest, registered)
        if not (self.csc_on_all and pairs):
            return unlabelled
        labelled = [len(a) * self.csc([a, b], self.task.registered) for a, b in pairs]
        rows = len(deepest[0]) + sum(len(a) for a, _ in pairs)
        return (len(deepest[0]) * unlabelled + torch.stack(labelled).sum()) / rows

    @torch.no_grad()
    def _shuffled(self, deepest: list[Tensor], registered: Tensor | bool) -> Tensor:
        assert self.csc is not None
        pairs = combinations(deepest, 2)
        return torch.stack([self.csc([a, b.roll(1, 0)], registered) for a, b in pairs]).mean()
