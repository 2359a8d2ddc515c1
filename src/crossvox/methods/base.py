"""What a training method is: everything the engine, the predictor and the command line rely on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.losses.distributed import world_size
from crossvox.networks.backbone import Backbone


class Method(nn.Module):
    """A model together with the losses that train it.

    A subclass takes (task, backbone, *, own hyper-parameters with types and defaults), defines
    `forward` and `predict`, and is entered in `crossvox.methods.METHODS`; the command line reads
    its options from that signature.

    Attributes:
        name: what the command line calls it.
        summary: one line for `crossvox list methods`.
        needs: what a batch must hold beside labelled crops: "unlabelled" crops, and the
            "companion" crops that other modalities have of the same subject.
        adaptation: what was changed of a published method so that it works here (unpaired scans,
            3-D, few labels), for the tables; empty if nothing.
        keeps_largest: of the classes that are one piece in the labels (`Task.one_piece`), a label
            map keeps one part only, unless `inference.largest` says otherwise.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    adaptation: ClassVar[str] = ""
    keeps_largest: bool = False

    def __init__(self, task: Task, backbone: Backbone) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses of one step.

        Args:
            batch: a modality may have no labelled crops.
            progress: share of the training that is done, from 0 to 1.

        Returns:
            "loss", to be minimised, and named parts of it. A part that it is made of keeps its
            graph; one without is for the log only.
        """
        raise NotImplementedError

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Logits for the modalities asked for.

        Args:
            images: modality → (B, 1, X, Y, Z); any non-empty subset of the task's modalities.
                Row i of all is one subject on one grid, and no other row has a say in its result.
            outputs: which modalities to segment, of those given; None = all of them.

        Returns:
            Modality → (B, K + 1, X, Y, Z).

        Raises:
            ValueError: if no image is given, or a modality is unknown or not given.
        """
        raise NotImplementedError

    def class_weights(self) -> tuple[float, ...]:
        """Of each class, background first: what its probability counts in a label map.

        None, as here, are all alike; see `inference.postprocessing`.
        """
        return ()

    def own_networks(self, modality: str) -> list[nn.Module]:
        """The encoder and the decoder that this modality's images pass through and no others'.

        Nothing if other modalities share one of them; only asked for to start each modality from
        a file of its own.
        """
        return []

    def before_step(self) -> None:
        """What is to be done once gradients are reduced and clipped; nothing by default."""

    def after_step(self) -> None:
        """What is to be done after each optimiser step; nothing by default."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser; by default one of all that is to be trained."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @property
    def n_parameters(self) -> int:
        """Number of values that are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def uses_unlabelled(self) -> bool:
        """Whether unlabelled images have a say in what is learnt, with the options given."""
        return "unlabelled" in self.needs

    def _wanted(self, images: Mapping[str, Tensor], outputs: Sequence[str] | None) -> list[str]:
        """Check a request to `predict` and list what it is for."""
        wanted = list(images) if outputs is None else list(outputs)
        known = set(self.task.modalities)
        if not images or not set(images) <= known or not set(wanted) <= set(images):
            raise ValueError(
                f"asked to segment {wanted} with images of {list(images)}; "
                f"this model knows {list(self.task.modalities)}"
            )
        return wanted

    def _total(self, terms: Iterable[Tensor]) -> Tensor:
        """The sum of the terms; under data parallelism one that every parameter takes part in.

        There each rank waits for each parameter's gradient, and a rank may happen to hold no
        crop of a modality.
        """
        total = torch.stack(list(terms)).sum()
        nothing = [p.flatten()[:0].sum() for p in self.parameters() if p.requires_grad]
        if world_size() > 1 and nothing:
            total = total + torch.stack(nothing).sum()
        return total
