"""The interface of training methods, on which training, prediction and command line rely."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.losses.distributed import world_size
from crossvox.networks.backbone import Backbone


class Method(nn.Module):
    """A model together with the losses that train it.

    A subclass takes `(task, backbone, *, options)`, where the options have types and defaults,
    defines `forward` and `predict`, and is entered in `crossvox.methods.METHODS`. The command line
    reads the options from the signature of the constructor.

    Attributes:
        name: name on the command line.
        summary: one line for `crossvox list methods`.
        needs: what a batch must hold in addition to labelled crops: "unlabelled" crops, and the
            "companion" crops of the subject's other modalities, or "stranger" crops of another
            subject in their places. `sampling.partner_drop` leaves some of these out, unless
            "every companion" is needed.
        adaptation: how a published method was changed to work here (unpaired scans, 3-D, few
            labels), for the tables; empty if it was not.
        published: option → its published value.
        trained: how the publication trains, for the tables; empty if that is not known.
        uses_backbone: whether the configured backbone makes its networks; False for a method that
            is an architecture of its own.
        own_start: whether the weights of another method would mislead it, so that its row of a
            benchmark begins from its own.
        starts_as: name of the method that trains such weights; empty = the method itself.
        loaded: the parameters that come from published weights; the others may be trained at a
            rate of their own.
        keeps_largest: whether label maps keep a single component of each class in
            `Task.one_piece`, unless `inference.largest` says otherwise.

    Examples:
        >>> method = METHODS["sup"](task, UNetBackbone(task))
        >>> method(batch, progress=0.5)["loss"].backward()
        >>> method.predict({"ct": torch.randn(1, 1, 32, 32, 16)})["ct"].shape
        torch.Size([1, 3, 32, 32, 16])
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    adaptation: ClassVar[str] = ""
    published: ClassVar[Mapping[str, Any]] = {}
    trained: ClassVar[str] = ""
    uses_backbone: ClassVar[bool] = True
    needs: frozenset[str] = frozenset()
    own_start: ClassVar[bool] = False
    starts_as: ClassVar[str] = ""
    loaded: Collection[nn.Parameter] = frozenset()
    keeps_largest: bool = False

    def __init__(self, task: Task, backbone: Backbone) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the losses of one step.

        Args:
            batch: a modality may have no labelled crops in it.
            progress: t / t_max, the fraction of the training that is done, from 0 to 1.

        Returns:
            "loss", which is minimised, and the named terms it is made of, unweighted and with
            their graph. Entries without a graph are only logged.

        Raises:
            ValueError: the batch holds no crop to train on.
        """
        raise NotImplementedError

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Compute logits for the requested modalities.

        Args:
            images: modality → (B, 1, X, Y, Z), any non-empty subset of the task's modalities. Row
                i shows one subject on one grid in all of them; rows do not affect each other.
            outputs: the modalities to segment, of those given; None = all of them.

        Returns:
            Modality → (B, K + 1, X, Y, Z).

        Raises:
            ValueError: no image is given, or a modality is unknown or not given.
        """
        raise NotImplementedError

    def adapted(self) -> list[str]:
        """Return how the method was changed to work on its task: `adaptation` and more."""
        return [self.adaptation] if self.adaptation else []

    def has_effect(self, option: str) -> bool:
        """Return whether an option in `published` changes anything here, given the others."""
        return True

    def class_weights(self) -> tuple[float, ...]:
        """Return the factor on each class's probability before the argmax, background first.

        Empty means no weighting; see `inference.postprocessing`.
        """
        return ()

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return the networks that a modality's images pass through, by the part they play.

        Encoders and decoders of the backbone are "encoder" and "decoder"; other parts have names
        of the method's own. Networks that modalities share appear for each of them. A run that
        starts from an earlier one takes the weights of equal roles (`workflows.training.start`).
        Together the roles hold every trained parameter. By default the whole method is one role of
        its own, which only the same method has.
        """
        return {self.name: self}

    def modality_networks(self, modality: str) -> list[nn.Module]:
        """Return the encoder and decoder that only this modality's images pass through.

        Empty if several modalities share one of them. Needed to start each modality from
        published weights of its own.
        """
        roles = self.roles(modality)
        networks = [roles[role] for role in ("encoder", "decoder") if role in roles]
        others = [m for m in self.task.modalities if m != modality]
        shared = {id(network) for m in others for network in self.roles(m).values()}
        return [] if any(id(network) in shared for network in networks) else networks

    def after_start(self) -> None:
        """Follow up a start from other weights, for example begin moving averages as copies."""

    def after_step(self) -> None:
        """Follow up the optimiser's step, for example update a moving average."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups; by default one of all trained parameters."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return _count(self)

    def parameters_by_part(self) -> dict[str, int]:
        """Return the number of trained parameters of each part, those without any left out.

        Parts are the named submodules, below what holds nothing but a single part.
        """
        module: nn.Module = self
        while True:
            parts = {name: part for name, part in module.named_children() if _count(part)}
            inner = list(parts.values())
            if len(inner) != 1 or isinstance(inner[0], nn.ModuleList | nn.Sequential):
                return {name: _count(part) for name, part in parts.items()}
            module = inner[0]

    @property
    def uses_unlabelled(self) -> bool:
        """True if unlabelled images affect the training, given the options."""
        return "unlabelled" in self.needs

    def modality_index(self, modality: str) -> int:
        """Return the position of a modality in the task."""
        return self.task.modalities.index(modality)

    def requested(self, images: Mapping[str, Tensor], outputs: Sequence[str] | None) -> list[str]:
        """Return the modalities that a call of `predict` asks for.

        Raises:
            ValueError: as `predict`.
        """
        wanted = list(images) if outputs is None else list(outputs)
        known = set(self.task.modalities)
        if not images or not set(images) <= known or not set(wanted) <= set(images):
            raise ValueError(
                f"asked to segment {wanted} with images of {list(images)}; "
                f"this model knows {list(self.task.modalities)}"
            )
        return wanted

    def total_loss(self, terms: Iterable[Tensor]) -> Tensor:
        """Sum the weighted terms, such that under data parallelism every parameter takes part.

        There each rank waits for the gradient of each parameter, but a rank may hold no crop of
        some modality.
        """
        total = torch.stack(list(terms)).sum()
        if world_size() == 1:
            return total
        return sum((p.flatten()[:0].sum() for p in self.parameters() if p.requires_grad), total)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
