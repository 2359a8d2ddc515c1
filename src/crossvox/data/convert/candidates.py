"""List the patterns that the paths of scans may follow."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from crossvox.utils.files import nifti_stem

WORD = r"[^/_.\-]+"
"""What names a modality: text without separators."""
KINDS = {"ct": "ct", "pet": "pet", "pt": "pet", "us": "us", "spect": "spect"}
MR = re.compile(r"(?i)(mri?|t1.*|t2.*|flair|pd|dwi|adc|swi|bssfp|lge|cine|c0|de)")


def kind_of(modality: str) -> str | None:
    """Return the kind that a modality's name tells, if it tells one."""
    return KINDS.get(modality.lower(), "mr" if MR.fullmatch(modality) else None)


def candidates(names: Sequence[str]) -> Iterator[str]:
    """Yield patterns: each folder and each part of the name fixed, the case, or the modality."""
    suffix = ".nii.gz" if all(name.endswith(".gz") for name in names) else ".nii*"
    depth = max(name.count("/") for name in names)
    rows = [nifti_stem(name).split("/") for name in names if name.count("/") == depth]
    levels = [_roles([row[i] for row in rows], ("{case}", "{modality}", "*")) for i in range(depth)]
    stems = [row[-1] for row in rows]
    endings = _roles(stems, ())
    for sep in "_-.":
        head, tail = [s.partition(sep)[0] for s in stems], [s.rpartition(sep)[2] for s in stems]
        if all(sep in s for s in stems):
            endings += [f"{{case}}{sep}{end}" for end in _roles(tail, ("{modality}", "*"))]
            endings += [f"{start}{sep}{{case}}" for start in _roles(head, ("{modality}",))]
            middle = [s.rpartition(sep)[0].rpartition(sep) for s in stems]
            if all(part[1] for part in middle) and len(set(tail)) == 1:
                ends = _roles([part[2] for part in middle], ("{modality}",))
                endings += [f"{{case}}{sep}{end}{sep}{tail[0]}" for end in ends]
    endings += ["{case}", "{modality}", "*"]
    for parts in itertools.product(*levels, endings):
        pattern = "/".join(parts)
        if pattern.count("{case}") in (1, 2) and pattern.count("{modality}") <= 1:
            yield pattern + suffix


def _roles(values: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return what a part of a path may be: `others`, or its text if that is always the same."""
    if len(set(values)) > 1:
        return list(others)
    return [values[0], "{modality}"] if kind_of(values[0]) else [values[0]]
