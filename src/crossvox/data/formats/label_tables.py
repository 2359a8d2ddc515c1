"""Names and colours of label ids, in the forms that viewers read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from nibabel.nifti1 import Nifti1Extension

from crossvox.errors import DataError, UsageError
from crossvox.utils.files import atomic_write
from crossvox.utils.palette import class_rgb

EXTENSION_CODE = 0
"""Code of an unspecified extension, as TotalSegmentator writes it. Under Caret's own code, 30,
nibabel's `get_content`, with which such files are commonly read, raises an error."""

SLICER_TABLE, ITKSNAP_TABLE = "labels.ctbl", "labels.itksnap.txt"


def label_extension(ids: Mapping[str, int]) -> Nifti1Extension:
    """Return a NIfTI header extension that names and colours label ids.

    It is the XML label table that Caret introduced and TotalSegmentator writes. Slicer, NiiVue
    and Python tools recognise it by its content.

    Args:
        ids: class name → id in the file, in the order of the classes.
    """
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for name, value, rgb in _rows(ids):
        red, green, blue = (f"{channel / 255:.4f}" for channel in rgb)
        label = ElementTree.SubElement(
            table, "Label", Key=str(value), Red=red, Green=green, Blue=blue, Alpha="1"
        )
        label.text = name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    content = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return Nifti1Extension(EXTENSION_CODE, content)


def slicer_table(ids: Mapping[str, int]) -> str:
    """Return a colour table of 3D Slicer (.ctbl): `id name red green blue opacity`.

    Names have no spaces there.
    """
    lines = ["# Color table file", f"# {len(ids) + 1} values", "0 Background 0 0 0 0"]
    for name, value, (red, green, blue) in sorted(_rows(ids), key=lambda row: row[1]):
        lines.append(f"{value} {'_'.join(name.split())} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"


def itksnap_table(ids: Mapping[str, int]) -> str:
    """Return label descriptions of ITK-SNAP: `id red green blue alpha visible mesh "name"`."""
    lines = ["# ITK-SnAP Label Description File", '0 0 0 0 0 0 0 "Clear Label"']
    for name, value, (red, green, blue) in sorted(_rows(ids), key=lambda row: row[1]):
        plain = name.replace('"', "'")
        lines.append(f'{value} {red} {green} {blue} 1 1 1 "{plain}"')
    return "\n".join(lines) + "\n"


def read_itksnap_table(path: Path) -> dict[str, int]:
    """Return class name → id of ITK-SNAP's label descriptions; raise `DataError` for another file.

    The clear label, 0, is left out.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no readable label descriptions ({error})") from error
    rows = [re.fullmatch(r'\s*(\d+)\s.*"(.+)"\s*', line) for line in lines]
    ids = {row[2]: int(row[1]) for row in rows if row and int(row[1])}
    if not ids:
        raise DataError(f"{path}: no label descriptions of ITK-SNAP; give --ids or --data")
    return ids


def write_label_tables(folder: Path, ids: Mapping[str, int]) -> None:
    """Write `labels.ctbl` and `labels.itksnap.txt` into `folder`."""
    for name, text in _tables(ids).items():
        atomic_write(folder / name, text)


def require_same_tables(folder: Path, ids: Mapping[str, int]) -> None:
    """Raise `UsageError` if tables in `folder` name other ids, which are those of other results."""
    for name, text in _tables(ids).items():
        file = folder / name
        if file.exists() and file.read_bytes() != text.encode():
            raise UsageError(
                f"{file}: names the classes of other results ({', '.join(ids)} are this run's); "
                "give another --out"
            )


def _tables(ids: Mapping[str, int]) -> dict[str, str]:
    return {SLICER_TABLE: slicer_table(ids), ITKSNAP_TABLE: itksnap_table(ids)}


def _rows(ids: Mapping[str, int]) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    for index, (name, value) in enumerate(ids.items(), start=1):
        yield name, value, class_rgb(index)
