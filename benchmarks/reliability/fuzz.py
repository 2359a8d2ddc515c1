"""Fuzz the readers of scans and manifests, guided by code coverage (atheris, libFuzzer).

    python benchmarks/reliability/fuzz.py nifti --seconds 60

Each input is read as the commands read it. It must be read, or refused by a `DataError`. Any other
error, and an input that takes 20 s or 2 GB, ends the fuzzing with a traceback and exit code 77. The
input is then in the folder `--out` as crash-…; `--input FILE` reads it once. `--out` also keeps the
inputs that reached new code. The next run begins with them.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crossvox.data", "nibabel"]):
    import nibabel as nib
    import numpy as np

    from crossvox.data.formats.nifti import read_image, read_nifti
    from crossvox.data.manifest import load_manifest, load_valid_cases
    from crossvox.errors import DataError

SLOWEST, MOST_MB = 20, 2048
"""Limits for an input of a few kB, in seconds and MB."""


def nifti(path: Path) -> None:
    """Read a scan as `check` and as training do."""
    read_nifti(path)
    with contextlib.suppress(DataError):
        read_image(path)


def manifest(path: Path) -> None:
    """Read a dataset.json as all commands and as `check` do."""
    for read in (load_manifest, load_valid_cases):
        with contextlib.suppress(DataError):
            read(path)


def seeds(target: str) -> list[bytes]:
    """Return valid files to begin with."""
    volume = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    if target == "manifest":
        case = {"id": "p1", "split": "train", "images": {"ct": "a.nii"}, "labels": {"ct": "b.nii"}}
        others = {"ignore": 9, "background": [7], "registered": True, "source": "here"}
        sound = {"name": "d", "modalities": {"ct": {"kind": "ct"}}, "labels": {"liver": 1}}
        more = case | {"id": "p2", "split": "val", "annotated": ["liver"]}
        documents = [sound | {"cases": [case]}, sound | others | {"cases": [case, more]}]
        return [json.dumps(document).encode() for document in documents]
    files = [kind(volume, np.eye(4)).to_bytes() for kind in (nib.Nifti1Image, nib.Nifti2Image)]
    files.append(nib.Nifti1Image(volume.astype(np.float64), np.eye(4)).to_bytes())
    return [gzip.compress(file, 1) for file in files] if target == "gzip" else files


TARGETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nifti": (nifti, "a.nii"),
    "gzip": (nifti, "a.nii.gz"),
    "manifest": (manifest, "dataset.json"),
}
"""Name → how to read an input, and the name of its file."""


def main() -> None:
    """Fuzz, or read one input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="inputs of note")
    parser.add_argument("--input", type=Path, help="read this one only")
    options = parser.parse_args()
    read, name = TARGETS[options.target]
    if options.input is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(options.input.read_bytes())
            read(path)
        return
    corpus = options.out / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(options.target)):
        (corpus / f"seed{number}").write_bytes(content)
    # libFuzzer ends the process past any clean-up: no temporary folder, it would be left behind.
    path = options.out / f"{options.target}-now" / name
    path.parent.mkdir(exist_ok=True)

    def once(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    nib.imageglobals.logger.setLevel("CRITICAL")  # thousands of remarks on headers
    limits = [f"-max_total_time={options.seconds}", f"-timeout={SLOWEST}"]
    limits += [f"-rss_limit_mb={MOST_MB}", "-max_len=4096", "-print_final_stats=1"]
    places = [f"-artifact_prefix={options.out}/", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *places], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
