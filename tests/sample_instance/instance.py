# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole sample instance: ``ROOT/{models,config,logs}`` as a production host has it after some years.

By hand: ``python tests/sample_instance/instance.py ROOT --size 2G --seed 7``.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from . import config_tree, model_tree, permissions
    from .logs import ACTIVE, History, write_history
else:  # started as a script: find the package that this file is in
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from sample_instance import config_tree, model_tree, permissions
    from sample_instance.logs import ACTIVE, History, write_history

DEFAULT_SEED = 20240520
MODEL_NAME = "Qwen3Guard-Gen-8B"
SECOND_USER = 65534  # gets ACLs; a number, for it need not exist on the host
SERVICE_USER = 10001  # owns the log when root makes the instance

ACLS, XATTRS, CAPABILITIES, OWNERS = "acls", "xattrs", "capabilities", "owners"
KINDS = (ACLS, XATTRS, CAPABILITIES, OWNERS)

_READ, _READ_ENTER = 4, 5
_SPARSE_SIZE = 4 << 20
_SPARSE_DATA = 64 << 10
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_FIRST_MTIME_NS = 1_716_000_000 * 10**9


class Unsupported(RuntimeError):
    """The file system cannot hold what the sample instance is to have."""


@dataclass
class Instance:
    """Where everything is, what the log holds, and which kinds had to be left out (``KINDS``)."""

    root: Path
    models: Path
    config: Path
    logs: Path
    model: Path
    history: History
    left_out: list[str]


def make_instance(
    root: Path,
    size: int = 0,
    days: int = 4,
    records_per_day: int = 500,
    seed: int = DEFAULT_SEED,
    leave_out: Collection[str] = (),
) -> Instance:
    """Make the instance below ``root``, which is absent or empty.

    ``size``: bytes of model weights; 0 is the tiny trained model. ``leave_out``: kinds that are not wanted. File
    capabilities and foreign owners need root, and are left out by themselves where we are not; a file system
    without ACLs or xattrs is an error unless they are left out on purpose.
    """
    root = Path(root)
    unknown = set(leave_out) - set(KINDS)
    if unknown:
        raise ValueError(f"leave_out: expected some of {', '.join(KINDS)}, found {', '.join(sorted(unknown))}")
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise FileExistsError(f"{root}: expected an empty directory, found {next(root.iterdir()).name} in it")
    left_out = _left_out(root, leave_out)
    instance = Instance(
        root=root,
        models=root / "models",
        config=root / "config",
        logs=root / "logs",
        model=root / "models" / MODEL_NAME,
        history=History([], 0),
        left_out=left_out,
    )
    for directory in (instance.models, instance.config, instance.logs):
        directory.mkdir()
    _make_models(instance, size, seed)
    config_tree.write_config(instance.config, seed)
    _set_model_and_config_permissions(instance)
    # The log directory gets its default ACL first, so that the files inherit it as on a real host.
    instance.logs.chmod(0o2750)
    if ACLS not in left_out:
        permissions.allow_user_by_default(instance.logs, SECOND_USER, _READ_ENTER)
        permissions.allow_user(instance.logs, SECOND_USER, _READ_ENTER)
    instance.history = write_history(instance.logs, days, records_per_day, seed)
    _set_log_permissions(instance)
    _set_times(instance, seed)
    return instance


def _left_out(root: Path, leave_out: Collection[str]) -> list[str]:
    probe = root / ".probe"
    probe.touch()
    try:
        reasons = permissions.why_unsupported(probe, SECOND_USER)
    finally:
        probe.unlink()
    left_out = set(leave_out)
    if os.geteuid() != 0:
        left_out |= {CAPABILITIES, OWNERS}
    for kind, reason in reasons.items():
        if reason and kind not in left_out:
            raise Unsupported(
                f"{root}: expected a file system that holds {kind}, found {reason!r}. "
                f"Choose another place, or leave them out (leave_out={[kind]}, --leave-out {kind})"
            )
    return [kind for kind in KINDS if kind in left_out]


def _make_models(instance: Instance, size: int, seed: int) -> None:
    model_tree.write_model(instance.model, size, seed)
    (instance.models / "current").symlink_to(MODEL_NAME)
    licence = instance.models / "LICENSE"
    licence.write_text("Sample weights for tests. Licence: that of the collection.\n", encoding="utf-8")
    os.link(licence, instance.model / "LICENSE")
    cache = instance.models / "cache"
    cache.mkdir()
    # The engine's preallocated cache: data at its start and in its middle, and holes.
    data = random.Random(f"cache {seed}")
    with open(cache / "compile_cache.bin", "wb") as output:
        output.write(data.randbytes(_SPARSE_DATA))
        output.seek(_SPARSE_SIZE // 2)
        output.write(data.randbytes(_SPARSE_DATA))
        output.truncate(_SPARSE_SIZE)


def _set_model_and_config_permissions(instance: Instance) -> None:
    instance.models.chmod(0o755)
    instance.model.chmod(0o755)
    for path in instance.model.iterdir():
        path.chmod(0o644)
    (instance.models / "cache").chmod(0o700)
    config = instance.config
    config.chmod(0o750)
    (config / "users").chmod(0o2750)
    (config / "nginx.conf").chmod(0o640)
    (config / "routes/api_routes.json").chmod(0o640)
    hard_linked = config / "sites/conf.d/limits.conf.orig"
    os.link(config / "sites/conf.d/limits.conf", hard_linked)
    if ACLS not in instance.left_out:
        permissions.allow_user(config / "users/permissions.yml", SECOND_USER, _READ)
        permissions.allow_user(config / "routes", SECOND_USER, _READ_ENTER)
        permissions.allow_user_by_default(config / "routes", SECOND_USER, _READ_ENTER)
    if XATTRS not in instance.left_out:
        os.setxattr(instance.model / "config.json", "user.origin", b"sample instance")
        os.setxattr(config / "nginx.conf", "user.reviewed_by", "王检查员".encode())
        os.setxattr(config / "users", "user.empty", b"")
        os.setxattr(config / "routes/api_routes.json", "user.binary", bytes(range(256)))
    if CAPABILITIES not in instance.left_out:
        permissions.let_bind_low_ports(config / "hooks/reload.sh")


def _set_log_permissions(instance: Instance) -> None:
    for path in instance.logs.iterdir():
        if OWNERS not in instance.left_out:
            os.chown(path, SERVICE_USER, SERVICE_USER)
        # One mode for plain and one for compressed files. With an ACL this sets its mask, not the group's right.
        path.chmod(0o440 if path.suffix == ".gz" else 0o640)
    if OWNERS not in instance.left_out:
        os.chown(instance.logs, SERVICE_USER, SERVICE_USER)
        instance.logs.chmod(0o2750)  # a change of owner may take the setgid bit away
    if XATTRS not in instance.left_out:
        os.setxattr(instance.logs / ACTIVE, "user.retention_days", b"30")


def _set_times(instance: Instance, seed: int) -> None:
    """Nanosecond times for models and config; log files have those of the simulated clock. Directories last."""
    times = random.Random(f"times {seed}")
    paths = [path for top in (instance.models, instance.config) for path in [top, *top.rglob("*")]]
    for path in sorted(paths, reverse=True):  # a path comes before the directory that it is in
        when = _FIRST_MTIME_NS + times.randrange(2 * 10**15)
        os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime(instance.logs, ns=(_FIRST_MTIME_NS, _FIRST_MTIME_NS + 123_456_789))


def parse_size(text: str) -> int:
    """``0``, ``500M``, ``2G``: bytes, with binary units."""
    number, unit = (text[:-1], text[-1].upper()) if text and text[-1].isalpha() else (text, "")
    if not number.isdigit() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"expected a size such as 500M or 2G, found {text!r}")
    return int(number) * _UNITS[unit]


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a sample instance: ROOT/{models,config,logs}.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--size", type=parse_size, default=0, help="bytes of weights; 0 is the tiny trained model")
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--records-per-day", type=int, default=500)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--leave-out", action="append", default=[], choices=KINDS)
    options = parser.parse_args()
    try:
        instance = make_instance(
            options.root, options.size, options.days, options.records_per_day, options.seed, options.leave_out
        )
    except (OSError, ValueError, Unsupported) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{instance.root}: {len(instance.history.records)} records, left out: {', '.join(instance.left_out) or '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
