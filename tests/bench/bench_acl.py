# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long acl_snapshot takes to save 200,000 files, against getfacl -R -n. Runs alone:

    .venv/bin/python tests/bench/bench_acl.py [--files N] [--runs N] [--acl-share SHARE] [--json]

Both are timed as whole processes, one after the other in turn, after one run that counts for nothing. From the
module's time that of a Python that only loads ansible.module_utils.basic is taken off: Ansible's own start-up.
The snapshot is written anew, and flushed to disk, in each run; getfacl writes to a file, unflushed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from sample_instance.permissions import ACCESS_ACL, acl_for_user

from support.checkout import find_tool, link_collection

GOAL = 1.3
PER_DIRECTORY = 1000


def make_tree(root: pathlib.Path, files: int, acl_share: float) -> None:
    """Day directories of audit logs; some of the files may be read by a second user."""
    chance = random.Random(1)
    acl = acl_for_user(0o640, 1001, 4)
    for first in range(0, files, PER_DIRECTORY):
        day = first // PER_DIRECTORY
        directory = root / f"{day // 20:03d}" / f"day-{day:04d}"
        directory.mkdir(parents=True)
        for number in range(first, min(first + PER_DIRECTORY, files)):
            path = str(directory / f"audit-{number:07d}.jsonl")
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o640))
            if chance.random() < acl_share:
                os.setxattr(path, ACCESS_ACL, acl)


def timed(argv: list[str], stdin: bytes = b"", **options: t.Any) -> tuple[float, bytes]:
    """Seconds of a whole process, and what it printed; it must succeed."""
    started = time.perf_counter()
    done = subprocess.run(argv, input=stdin, stdout=options.pop("stdout", subprocess.PIPE), check=True, **options)
    return time.perf_counter() - started, done.stdout


def run_bench(files: int = 200_000, runs: int = 3, acl_share: float = 0.02) -> dict[str, t.Any]:
    """Medians in seconds, and their ratio."""
    getfacl = find_tool("getfacl")
    environment = dict(os.environ, PYTHONPATH=str(link_collection()))
    module = [sys.executable, str(ROOT / "plugins" / "modules" / "acl_snapshot.py")]
    times: dict[str, list[float]] = {"getfacl": [], "acl_snapshot": [], "start-up": [], "acl_snapshot, inside": []}
    with tempfile.TemporaryDirectory(prefix="bench-acl-") as folder:
        tree, file = pathlib.Path(folder, "tree"), pathlib.Path(folder, "snapshot")
        make_tree(tree, files, acl_share)
        arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(tree), "file": str(file)}}).encode()
        for number in range(runs + 1):
            with open(os.path.join(folder, "getfacl"), "wb") as output:
                theirs, _none = timed([getfacl, "-R", "-n", "."], cwd=tree, stdout=output)
            for old in (file, pathlib.Path(f"{file}.json")):
                old.unlink(missing_ok=True)
            ours, printed = timed(module, arguments, env=environment)
            start_up, _none = timed([sys.executable, "-c", "import ansible.module_utils.basic"], env=environment)
            result = json.loads(printed)
            if not result["changed"] or result["entries"] <= files:
                raise RuntimeError(f"the module did not save the tree: {printed!r}")
            if number:  # the first one warmed the caches
                for name, seconds in zip(times, (theirs, ours - start_up, start_up, result["seconds"])):
                    times[name].append(seconds)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    ratio = round(medians["acl_snapshot"] / medians["getfacl"], 2)
    return {
        "files": files,
        "acl_share": acl_share,
        "runs": runs,
        "medians": medians,
        "ratio": ratio,
        "goal": GOAL,
        "reached": ratio <= GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--acl-share", type=float, default=0.02, help="share of the files with an ACL, 0 to 1")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run_bench(options.files, options.runs, options.acl_share)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['files']} files, {found['acl_share']:.0%} with an ACL, median of {found['runs']}")
    for name, seconds in found["medians"].items():
        print(f"  {name:<22}{seconds:8.2f} s")
    print(f"  {'ratio':<22}{found['ratio']:8.2f}   (goal: {found['goal']})")


if __name__ == "__main__":
    main()
