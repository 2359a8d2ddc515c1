"""A diagnosis of this machine: versions, hardware and missing packages."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import metadata

import torch

from crossvox.utils.machine import usable_cores
from crossvox.version import __version__

_FEATURES = {
    "dicom": "DICOM",
    "onnx": "ONNX files",
    "bundle": "running MONAI bundles",
    "tensorboard": "training curves in the browser",
    "notebook": "viewing scans in notebooks",
}
"""Extra → feature that needs its packages. Other extras are for developers."""


def diagnose() -> Iterator[str]:
    """Yield a line per fact, then a line per missing thing."""
    yield f"crossvox         {__version__}, Python {platform.python_version()}"
    yield f"system           {platform.platform()}"
    missing, required = [], []
    try:
        required = metadata.requires("crossvox") or []
    except metadata.PackageNotFoundError:
        missing.append("missing: crossvox is not installed here; pip install its folder")
    for requirement in required:
        need, _, marker = requirement.partition("; extra == ")
        package, extra = re.split(r"[^\w.-]", need)[0], marker.strip("\"'")
        if extra and extra not in _FEATURES:
            continue
        try:
            yield f"{package:<17}{metadata.version(package)}"
        except metadata.PackageNotFoundError:
            if extra:
                feature, advice = _FEATURES[extra], f"pip install 'crossvox[{extra}]'"
                yield f"{package:<17}not installed, only needed for {feature}; {advice}"
            else:
                missing.append(f"missing: {package}; pip install '{need}'")
    yield f"cores            {usable_cores()} usable of {os.cpu_count()}"
    yield f"threads          {torch.get_num_threads()}"
    yield f"memory           {_memory()}"
    yield f"free disk here   {shutil.disk_usage('.').free / 2**30:.1f} GiB"
    for variable in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            yield f"{variable}={os.environ[variable]}"
    yield from _devices(missing)
    yield from missing or ["nothing is missing"]


def _devices(missing: list[str]) -> Iterator[str]:
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        half = (
            "bf16"
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else "no bf16: trains in fp32"
        )
        yield f"GPU {index}            {card.name}, {card.total_memory / 2**30:.0f} GiB, {half}"
    if torch.backends.mps.is_available():
        yield "GPU              Apple MPS"
    if not torch.cuda.is_available():
        reason = "torch is built for CPU only" if torch.version.cuda is None else "no card visible"
        missing.append(f"missing: CUDA ({reason}), needed for all presets but quick and cpu")


def _memory() -> str:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"
