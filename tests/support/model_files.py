# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of the tiny model, and tools to damage them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.model_check import check_model

TINY = Path(__file__).resolve().parents[1] / "sample_instance" / "tiny_model"
INDEX = "model.safetensors.index.json"
DOWN = "model.layers.1.mlp.down_proj.weight"


def copy_model(folder):
    """A copy of the tiny model in one file."""
    return Path(shutil.copytree(TINY, folder / "model"))


def split_model(model):
    """The same in two files with an index, as large models are."""
    header, data = load(model / "model.safetensors")
    names = sorted(header)
    halves = {"model-00001-of-00002.safetensors": names[:12], "model-00002-of-00002.safetensors": names[12:]}
    for file, part in halves.items():
        save(model / file, {name: header[name] for name in part}, {name: data[name] for name in part})
    (model / "model.safetensors").unlink()
    edit(
        model / INDEX,
        {
            "metadata": {"total_size": sum(map(len, data.values()))},
            "weight_map": {name: file for file, part in halves.items() for name in part},
        },
    )
    return model


def load(path):
    """Header and bytes of a safetensors file, by tensor."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return header, {n: raw[start + e["data_offsets"][0] : start + e["data_offsets"][1]] for n, e in header.items()}


def save(path, header, data):
    """Write a safetensors file whose offsets are right."""
    position, entries = 0, {}
    for name in header:
        entries[name] = {**header[name], "data_offsets": [position, position + len(data[name])]}
        position += len(data[name])
    raw = json.dumps(entries).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(data[name] for name in header))


def edit(path, change):
    """Replace a JSON file, or change it by a function."""
    value = change
    if callable(change):
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def change_tensor(model, name, *, data=None, **entry):
    """Change a tensor's bytes by a function, or its entry in the header."""
    header, contents = load(model / "model.safetensors")
    header[name].update(entry)
    if data is not None:
        contents[name] = data(contents[name])
    save(model / "model.safetensors", header, contents)


def failures(path, **options):
    """What the check finds wrong, transformers left aside; ``ok`` must agree with it."""
    verdict = check_model(str(path), use_transformers=False, **options)
    assert verdict["ok"] is (verdict["failures"] == [])
    return verdict["failures"]
