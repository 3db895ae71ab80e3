# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo shows of the audit trail: where one record is, and evidence of all of them."""

from __future__ import annotations

import datetime
import pathlib
import subprocess
import sys
import tempfile
import typing as t

from .playbooks import DemoFailed, WatchedPlaybooks
from .screen import Screen

_OF_A_RECORD = ("line_sha256", "chain", "seq")


class Proof:
    """``directory`` gets the key that signs, and the bundle."""

    def __init__(self, directory: pathlib.Path, playbooks: WatchedPlaybooks, screen: Screen):
        self._directory = directory
        self._playbooks = playbooks
        self._screen = screen

    def trace(self, trace_id: str) -> dict[str, t.Any]:
        """The archived record, which must be whole."""
        ((result,),) = self._playbooks.run("trace", guardops_trace_id=trace_id).values()
        if not result["archived"] or len(result["records"]) != 1 or not result["records"][0]["check"]["ok"]:
            raise DemoFailed(f"{trace_id}: expected one archived record, and it unchanged; found {result}")
        (record,) = result["records"]
        found: dict[str, t.Any] = record
        self._screen.say(f"{found['object']}, byte {found['part_offset']} of what is in it")
        self._screen.say(
            f"record {found['seq']} of chain {found['chain']}; {result['parts_fetched']} part fetched, "
            f"{result['seconds']:.1f} s"
        )
        return found

    def expect_same(self, before: dict[str, t.Any], after: dict[str, t.Any]) -> None:
        """The record after the disaster is the one from before, byte by byte."""
        for name in _OF_A_RECORD:
            if before[name] != after[name]:
                raise DemoFailed(f"the record's {name}: expected {before[name]}, found {after[name]}")
        self._screen.say("the same record as before the disaster, byte by byte")

    def export(self, start: str) -> None:
        """From ``start`` until now, signed; then what an inspector does: run the bundle's own checker."""
        bundle = self._directory / "evidence"
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
        ((result,),) = self._playbooks.run(
            "export",
            guardops_export_start=start,
            guardops_export_end=end.isoformat(),
            guardops_export_path=str(bundle),
            guardops_export_key=str(self._signing_key()),
        ).values()
        self._screen.say(f"{result['records']} records in {bundle}, signed by {result['signed_by']}")
        for text in dict.fromkeys(f"{finding['kind']}: {finding['why']}" for finding in result["findings"]):
            self._screen.say(text)
        checked = subprocess.run(
            [sys.executable, "-I", "-S", str(bundle / "check.py")],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if checked.returncode or not result["ok"]:
            raise DemoFailed(f"the evidence: expected nothing wrong, found\n{checked.stdout}{checked.stderr}")
        self._screen.say(f"check.py: {checked.stdout.splitlines()[-1]}")

    def _signing_key(self) -> pathlib.Path:
        """A key made for this demo alone; gpg's home is gone again afterwards."""
        path = self._directory / "evidence.sec.asc"
        path.touch(0o600)
        with tempfile.TemporaryDirectory(prefix="guardops-demo-") as home:  # short: the agent's socket lies in it
            gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
            try:
                _run([*gpg, "--quick-gen-key", "Demo evidence <evidence@example.org>", "ed25519", "sign", "1d"])
                path.write_bytes(_run([*gpg, "--armor", "--export-secret-keys"]))
            finally:
                _run(["gpgconf", "--homedir", home, "--kill", "all"])
        return path


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
