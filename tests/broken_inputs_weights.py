"""Broken and hostile files of published weights: each function writes one.

If anything in the file is run, the folder `proof` comes to be.
"""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import torch

from broken_inputs_checkpoints import Malicious


def torch_file(path, proof):
    torch.save({"state_dict": {"w": torch.zeros(2)}, "extra": Malicious(proof)}, path)


def bare_pickle(path, proof):
    path.write_bytes(pickle.dumps(Malicious(proof)))


def legacy_file(path, proof):
    torch.save({"w": Malicious(proof)}, path, _use_new_zipfile_serialization=False)


def zip_bomb(path, proof):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(30_000_000))


def safetensors_of_a_huge_header(path, proof):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{" + b" " * 50)


def safetensors_of_huge_tensors(path, proof):
    head = b'{"w":{"dtype":"F32","shape":[60000,60000,60000],"data_offsets":[0,864000000000000]}}'
    path.write_bytes(len(head).to_bytes(8, "little") + head)


def empty(path, proof):
    path.write_bytes(b"")


def cut(path, proof):
    torch.save({"w": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:300])


def bomb_of_a_tensor(path, proof):
    """A file of torch.save as it should be, but that its zeros are compressed: 1000 to 1."""
    torch.save({"w": torch.zeros(5_000_000)}, path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)


def tensor_of_one_number(path, proof):
    torch.save({"w": torch.zeros(1).expand(60000, 60000, 60000)}, path)


def tensor_without_numbers(path, proof):
    torch.save({"w": torch.empty(60000, 60000, 60000, device="meta")}, path)


def sparse_tensor(path, proof):
    place, value = torch.zeros((3, 1), dtype=torch.long), torch.ones(1)
    torch.save(
        {"w": torch.sparse_coo_tensor(place, value, (60000, 60000, 60000), check_invariants=True)},
        path,
    )


def numpy_objects(path, proof):
    with open(path, "wb") as file:
        np.save(file, np.array([Malicious(proof)], dtype=object), allow_pickle=True)


def numpy_archive(path, proof):
    with open(path, "wb") as file:
        np.savez(file, w=np.array([Malicious(proof)], dtype=object))


def script(path, proof):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def nested_pickle(path, proof):
    path.write_bytes(b"\x80\x02" + b"(" * 200_000 + b".")


WEIGHTS = [
    *(torch_file, bare_pickle, legacy_file, nested_pickle, numpy_objects, numpy_archive, script),
    *(zip_bomb, bomb_of_a_tensor, tensor_of_one_number, tensor_without_numbers, sparse_tensor),
    *(empty, cut, safetensors_of_a_huge_header, safetensors_of_huge_tensors),
]
