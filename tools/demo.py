# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job on a sample instance, start to end: audit, back up, verify, lose everything, restore, compare, prove.

Started by `make demo`. It needs no root, and leaves nothing behind but its directory. It exits with 0 only when every
byte, mode, owner, ACL and extended attribute came back.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import errno
import os
import pathlib
import secrets
import shutil
import signal
import sys
import time
import typing as t

sys.dont_write_bytecode = True  # nothing is left beside the sources
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from demonstration import evidence, processes
from demonstration.evidence import Evidence
from demonstration.guard import Guard
from demonstration.playbooks import DemoFailed, WatchedPlaybooks
from demonstration.proof import Proof
from demonstration.screen import INDENT, Screen, amount, table
from sample_instance import config_tree, model_tree, permissions
from sample_instance.instance import SECOND_USER, Instance, make_instance, parse_size
from sample_instance.logs import Writer

from support.playbooks import Results
from support.seaweed import Seaweed

STEPS = 13
INSTANCE = "demo-guard"
LAYERS = ("model", "config", "logs")
LEVELS = ("listed", "stored", "decrypted", "restored", "loaded")
BUCKET = "guard-backups"
MARK = ".guardops-demo"  # only a directory with this file in it is ever removed
# Of the size of the weights: the instance, the store, and one restore beside them.
ROOM_NEEDED = 3.2
ROOM_BESIDES = 300 << 20


class Demo:
    """One run, in its directory."""

    def __init__(self, directory: pathlib.Path, size: int, torch_python: str):
        self.directory = directory
        self.size = size
        self.torch_python = torch_python
        self.screen = Screen(STEPS)
        self._open = contextlib.ExitStack()  # what must not outlive the run

    def run(self) -> int:
        """All steps. What was started is stopped in any case."""
        started = time.monotonic()
        self._prepare()
        processes.adopt_orphans()
        with self._open:
            server = self._open.enter_context(Seaweed(self.directory / "store"))
            try:
                found, rows, lines = self._steps(server)
            except BaseException:
                # A second Ctrl-C must not keep the first from cleaning up.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                self.screen.clear()
                processes.end_all()
                raise
        if left := processes.descendants():
            processes.end_all()
            raise DemoFailed(f"these processes were still there at the end: {left}")
        print()
        print(
            table(("layer", "files", "bytes", "seconds", "MB/s", "verified", "recovery point", "recovery time"), rows)
        )
        print("\n".join(["", *lines]))
        print(f"The demo took {time.monotonic() - started:.0f} s. What it made is in {self.directory}.")
        if found:
            print(f"\nFAILED: {len(found)} differences after the recovery:", file=sys.stderr)
            print("\n".join(f"  {text}" for text in found), file=sys.stderr)
            return 1
        print("Every byte, mode, owner, ACL and extended attribute came back.")
        return 0

    def _prepare(self) -> None:
        """An empty directory with room, and the programs that no pip brings."""
        missing = [name for name in ("gpg", "git") if not shutil.which(name)]
        if missing:
            raise DemoFailed(f"missing: {', '.join(missing)} (Debian: apt install gpg git)")
        if self.directory.exists():
            if any(self.directory.iterdir()) and not (self.directory / MARK).exists():
                raise DemoFailed(f"{self.directory}: expected nothing, or what an earlier demo left; found other files")
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True)
        (self.directory / MARK).touch()
        needed, free = int(self.size * ROOM_NEEDED) + ROOM_BESIDES, shutil.disk_usage(self.directory).free
        if free < needed:
            raise DemoFailed(f"{self.directory}: expected {amount(needed)} of free space, found {amount(free)}")

    def _steps(self, server: Seaweed) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
        """Differences (none, if all is well), rows of the table, and lines to print below it."""
        screen = self.screen
        with screen.step("Start a real S3 server (SeaweedFS) on loopback, with keys of its own"):
            server.make_bucket(BUCKET)
            screen.say(server.endpoint)
        with screen.step("Make a sample instance: a model, a configuration, and days of audit log"):
            instance = self._make_instance()
        guard = Guard(self.directory / "guard", instance.logs / "gateway")
        self._open.callback(guard.stop)
        playbooks = WatchedPlaybooks(self.directory, self._variables(server, guard), screen)
        proof = Proof(self.directory, playbooks, screen)

        with screen.step("Start the audit gateway, and ask it"):
            guard.start()
            first = self._ask(guard)[0]
        with screen.step("Back up the three layers"):
            fulls = playbooks.run("backup")
            self._tell_backup(fulls)
        with screen.step("Write more audit records across two rotations, and let one user more in"):
            self._go_on(instance)
            asked = self._ask(guard)[0]
        with screen.step("Back up what is new: an increment of the logs, a commit of the configuration"):
            increments = playbooks.run("backup")
            self._tell_backup(increments)
            self._expect_increment(increments)
            told = guard.record(asked["trace_id"])
            screen.say(f"the gateway now tells of {asked['trace_id']}: {told['backup_status']}")
        with screen.step("Trace that record: which object holds it?"):
            traced = proof.trace(asked["trace_id"])
        with screen.step(f"Verify every layer at every level: {', '.join(LEVELS)}"):
            verdicts = playbooks.run("verify", guardops_levels=LEVELS)
            self._tell_verdicts(verdicts)

        with screen.step("Disaster: delete the whole data root, and what the backups knew on this host"):
            guard.lose()
            before = evidence.take_evidence(instance)
            told = {item["path"]: item["bytes"] for item in increments["logs"][0]["unfinished"]}
            if told != before.half_written:
                raise DemoFailed(f"half-written lines: expected the backup to tell {before.half_written}, found {told}")
            evidence.expect_whole_lines(before, instance.logs)
            shutil.rmtree(instance.root)
            shutil.rmtree(self.directory / "state")
            disaster = datetime.datetime.now(datetime.timezone.utc)
        with screen.step("Recover it from the repository and the key alone"):
            started = time.monotonic()
            restored = playbooks.run("restore", guardops_snapshot="latest_verified")
            recovery = time.monotonic() - started
        with screen.step("Compare every byte, mode, owner, ACL, extended attribute and record with what was lost"):
            after = evidence.take_evidence(instance)
            found = evidence.differences(before, after)
            screen.say(f"{len(found)} differences")
        with screen.step("Start the gateway again on what came back, ask it, and trace the same record"):
            guard.start()
            self._ask(guard)
            proof.expect_same(traced, proof.trace(asked["trace_id"]))
        with screen.step("Export all records of the gateway as evidence, and check it with Python alone"):
            proof.export(first["time"])
            guard.stop()

        rows = [_row(layer, fulls, increments, verdicts, restored, disaster) for layer in LAYERS]
        return found, rows, _lines(before, after, recovery)

    # -- parts of the steps

    def _make_instance(self) -> Instance:
        probe = self.directory / "probe"
        probe.touch()
        reasons = permissions.why_unsupported(probe, SECOND_USER)
        probe.unlink()
        # What root alone may set is left out by itself. A file system without ACLs is rare, and no reason to end here.
        unsupported = [kind for kind in ("acls", "xattrs") if reasons[kind]]
        instance = make_instance(self.directory / "data", self.size, leave_out=unsupported)
        self.screen.say(f"{instance.root}: {len(instance.history.records)} records")
        if instance.left_out:
            why = "not root" if not unsupported else f"the file system has no {' and '.join(unsupported)}"
            self.screen.say(f"without {' and '.join(instance.left_out)} ({why})")
        return instance

    def _ask(self, guard: Guard) -> list[dict[str, t.Any]]:
        answers = guard.ask()
        self.screen.say(f"{guard.engine}")
        for answer in answers:
            self.screen.say(f"{answer['trace_id']}: {answer['verdict']} {', '.join(answer['categories'])}".rstrip())
        return answers

    def _variables(self, server: Seaweed, guard: Guard) -> dict[str, t.Any]:
        key = self.directory / "trial.key"
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        variables: dict[str, t.Any] = {
            "guardops_instance": INSTANCE,
            "guardops_data_root": str(self.directory / "data"),
            "guardops_repository": f"store:{BUCKET}",
            "guardops_rclone_config": server.rclone_config(self.directory / "rclone.conf"),
            "guardops_state_dir": str(self.directory / "state"),
            "guardops_archive_ledger": str(guard.ledger),
            "guardops_key": {"provider": "file", "key_file": str(key)},
        }
        if not self.size:  # random weights have no answers
            variables["guardops_canaries"] = model_tree.canaries()
        if self.torch_python:
            variables["guardops_model_python"] = self.torch_python
        return variables

    def _go_on(self, instance: Instance) -> None:
        with Writer(instance.logs) as writer:
            count = len(writer.append(300))
            writer.rotate("numbered")
            count += len(writer.append(200))
            writer.rotate("dated")
            count += len(writer.append(100, torn=True))
        config_tree.grant(instance.config, "新审核员")
        self.screen.say(f"{count} records more, and half a line")

    def _tell_backup(self, results: Results) -> None:
        for layer in LAYERS:
            (result,) = results[layer]
            text = f"{layer}: {result['reason']}"
            if result["changed"]:
                text += f", {result['type']}, {result['files']} files, {amount(result['bytes'])}"
            self.screen.say(f"{text}, {result['seconds']:.1f} s")
            for item in result["unfinished"]:
                self.screen.say(f"{layer}: {item['path']} ends in half a line of {item['bytes']} bytes")

    def _expect_increment(self, results: Results) -> None:
        """The second backup must have been what the step says it is."""
        found = {layer: (results[layer][0]["changed"], results[layer][0]["type"]) for layer in LAYERS}
        expected = {"model": (False, ""), "config": (True, "full"), "logs": (True, "increment")}
        if found != expected:
            raise DemoFailed(f"the second backup: expected (changed, type) to be {expected}, found {found}")

    def _tell_verdicts(self, verdicts: Results) -> None:
        for layer in LAYERS:
            seconds = ", ".join(f"{verdict['level']} {verdict['seconds']:.1f} s" for verdict in verdicts[layer])
            self.screen.say(f"{layer}: {seconds}")
            deepest = verdicts[layer][-1]
            for text in deepest["not_checked"]:
                self.screen.say(f"{layer}, not checked: {text}")


def _row(
    layer: str, fulls: Results, increments: Results, verdicts: Results, restored: Results, disaster: datetime.datetime
) -> tuple[str, ...]:
    backups = [fulls[layer][0], increments[layer][0]]
    total = sum(backup["bytes"] for backup in backups)
    seconds = sum(backup["seconds"] for backup in backups if backup["changed"])
    (restore,) = restored[layer]
    created = datetime.datetime.strptime(restore["created"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    age = (disaster - created).total_seconds()
    return (
        layer,
        f"{restore['files']:,}",
        f"{total:,}",
        f"{seconds:.1f}",
        f"{total / 1e6 / seconds:.2f}",
        verdicts[layer][-1]["level"],
        f"{created:%H:%M:%S} UTC, {age:.0f} s before",
        f"{restore['seconds']:.1f} s",
    )


def _lines(before: Evidence, after: Evidence, recovery: float) -> list[str]:
    """What the table does not show."""
    lost, repeated = evidence.lost(before, after), evidence.repeated(after)
    lines = [
        "Bytes, seconds and MB/s are those of the backups, before compression; verified is the highest level passed.",
        f"Recovery point: {lost} of {len(before.records):,} records lost, {repeated} there more than once.",
        f"Recovery time: {recovery:.1f} s for the whole data root, ansible-playbook's own start included.",
    ]
    for name, length in before.half_written.items():
        lines.append(
            f"By design not there: the last {length} bytes of {name}, a record that was being written. "
            "The next increment would have had it."
        )
    return lines


def _stop(number: int, _frame: object) -> t.NoReturn:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does, with everything stopped."""
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=parse_size, default=0, help="of random weights (2G); default: a tiny trained model"
    )
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / ".demo", help="default: %(default)s")
    parser.add_argument("--torch-python", default="", help="a Python with torch and transformers, to ask the model")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return Demo(options.directory.absolute(), options.size, options.torch_python).run()
    except DemoFailed as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        if error.errno != errno.EACCES and error.errno != errno.EPERM:
            raise
        print(
            f"\nFAILED: {error}\nIf another user ran the demo here, remove {options.directory} first.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(f"\n{INDENT}stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
