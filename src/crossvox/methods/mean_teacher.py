"""The base of mean-teacher methods: one network per modality, each with a moving average."""

from __future__ import annotations

from typing import cast

from torch import nn

from crossvox.batch import Task
from crossvox.errors import require
from crossvox.methods.sup import Sup
from crossvox.networks.backbone import Backbone
from crossvox.networks.teacher import Teacher


class MeanTeacher(Sup):
    """One student and one teacher per modality; the students predict.

    Source: Tarvainen & Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, task: Task, backbone: Backbone, *, balance: float, decay: float) -> None:
        super().__init__(task, backbone, balance=balance)
        require("method.decay", decay, 0, 1)
        self.teachers = nn.ModuleList(Teacher(net, decay) for net in self.nets)

    def after_step(self) -> None:
        """Update the teachers."""
        for modality in self.task.modalities:
            self._teacher(modality).update(self._net(modality))

    def _teacher(self, modality: str) -> Teacher:
        return cast(Teacher, self.teachers[self.modality_index(modality)])
