"""Numbers of a step that are read later, so that the step waits for no device."""

from __future__ import annotations

import torch
from torch import Tensor


class LateValues:
    """A vector on its way from a device to the host; `wait` and `read` wait for it."""

    def __init__(self, values: Tensor) -> None:
        self._host = values
        self._arrival: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._host = torch.empty_like(values, device="cpu", pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def wait(self) -> None:
        """Wait until the device has computed the values."""
        if self._arrival is not None:
            self._arrival.synchronize()

    def read(self) -> list[float]:
        """Return the values, once the device has computed them."""
        self.wait()
        return self._host.tolist()
