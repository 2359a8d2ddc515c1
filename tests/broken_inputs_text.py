"""Broken manifests and configurations, as the bytes of the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def _change(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(sound: bytes) -> bytes:
        content = json.loads(sound)
        change(content)
        return json.dumps(content).encode()

    return changed


def _case(**values: object) -> Callable[[bytes], bytes]:
    return _change(lambda content: content["cases"][0].update(values))


def _head(**values: object) -> Callable[[bytes], bytes]:
    return _change(lambda content: content.update(values))


MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda sound: b"",
    "cut": lambda sound: sound[: len(sound) // 2],
    "not UTF-8": lambda sound: b"\xff\xfe\x00" + sound,
    "a NUL": lambda sound: b"\x00" + sound,
    "a list": lambda sound: b"[]",
    "a number": lambda sound: b"1e999",
    "null": lambda sound: b"null",
    "brackets without end": lambda sound: b"[" * 200_000,
    "a number of 100000 digits": lambda sound: b"9" * 100_000,
    "objects without end": lambda sound: b'{"a":' * 100_000,
    "a key twice": lambda sound: b'{"name": "a",' + sound.lstrip()[1:],
    "no cases": _change(lambda content: content.pop("cases")),
    "cases of no kind": _head(cases=3),
    "an empty list of cases": _head(cases=[]),
    "a case that is null": _head(cases=[None]),
    "modalities as a list": _head(modalities=["ct"]),
    "labels as text": _head(labels="liver"),
    "a class of id zero": _head(labels={"liver": 0}),
    "a class of negative id": _head(labels={"liver": -1}),
    "a class of endless id": _head(labels={"liver": float("inf")}),
    "a class of id no number": _head(labels={"liver": float("nan")}),
    "a class of huge id": _head(labels={"liver": 10**30}),
    "a class that clears the screen": _head(labels={"liver\x1b[2J": 1}),
    "a name of several lines": _head(name="a\nb"),
    "two classes of one id": _head(labels={"liver": 1, "spleen": 1}),
    "unknown key": _head(modalitys={}),
    "no name": _head(name=""),
    "a case's id leads elsewhere": _case(id="../../up"),
    "a case's id holds a NUL": _case(id="a\0b"),
    "a case's id is a number": _case(id=3),
    "a case's id is no name": _case(id="."),
    "unknown split": _case(split="training"),
    "images are null": _case(images=None),
    "no images": _case(images={}),
    "unknown modality": _case(images={"pet": "a.nii"}),
    "an image that is missing": _case(images={"ct": "nowhere.nii.gz"}),
    "an image that is a folder": _case(images={"ct": "."}),
    "an image whose path holds a NUL": _case(images={"ct": "a\0b.nii"}),
    "an image of too long a name": _case(images={"ct": "a" * 5000}),
    "an image that is a device": _case(images={"ct": "/dev/zero"}),
    "a lone surrogate": _case(images={"ct": "\ud800.nii"}),
}


CONFIGS: dict[str, bytes] = {
    "a list": b"- 1\n",
    "a text": b"hello\n",
    "unclosed": b"fit: {steps: 3\n",
    "a tab": b"fit:\n\tsteps: 3\n",
    "not UTF-8": b"\xff\xfe",
    "a NUL": b"fit: \x00\n",
    "a Python object": b"seed: !!python/object/apply:os.system ['touch ran']\n",
    "unknown key": b"fit: {stepz: 3}\n",
    "unknown section": b"fitt: {steps: 3}\n",
    "text for a number": b"fit: {steps: many}\n",
    "not a number": b"fit: {steps: .nan}\n",
    "a section that is null": b"fit: 3\n",
    "a key that is a list": b"? [a, b]\n: 3\n",
    "a key that is a number": b"3: 4\n",
    "a date that is none": b"seed: 2020-99-99\n",
    "unknown method": b"method: {name: magic}\n",
    "unknown backbone": b"backbone: {name: [1]}\n",
    "alias bomb of maps": b"a0: &a0 {x: 1}\n"
    + b"".join(
        f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}, r: *a{i - 1}}}\n".encode() for i in range(1, 40)
    ),
    "alias bomb of lists": b"a0: &a0 [1]\n"
    + b"".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n".encode() for i in range(1, 40)),
    "an alias of itself": b"fit: &a {steps: *a}\n",
    "an alias of nothing": b"fit: *nobody\n",
    "nested without end": b"fit: " + b"[" * 20_000,
}
