# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check an evidence bundle of audit records. Needs Python 3.6 or newer and nothing else:

    python3 -I check.py [BUNDLE] [--signer FINGERPRINT]

It shares no code with the program that made the bundle. It reads every record and checks: the list of files and their
SHA-256; each record's own hash, number and link to the one before; the order; the counts by hour; the gaps that the
statement admits; the heads against the anchors; and the signature, where a gpg program is there.

Exit code 0: the bundle is what its statement says, and nothing is missing or wrong. 1: it is not, and the lines that
begin with FAILED say why.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import typing as t
import zlib

STATEMENT = "statement.json"
SIGNATURE = "statement.json.asc"
RECORD = re.compile(
    rb'\{"chain":"([0-9a-f]{16})","seq":([1-9][0-9]*),"prev":"([0-9a-f]{64})","time":"([0-9T:.-]+Z)",'
    rb'"trace_id":"[A-Za-z0-9._-]+".*,"hash":"([0-9a-f]{64})"\}\n'
)
LONGEST_LINE = 64 * 1024 * 1024
MOST_TOLD = 50


def say(text: str) -> None:
    """A line for whoever runs this."""
    sys.stdout.write(text + "\n")


class Chain:
    """How far one chain was read."""

    def __init__(self, first: int, prev: str) -> None:
        self.first = first
        self.prev = prev
        self.last = first - 1
        self.count = 0
        self.head = ""
        self.latest = ""  # the highest time so far
        self.gaps = []  # type: t.List[t.List[int]]
        self.anchors = {}  # type: t.Dict[int, str]


class Check:
    """One check of one bundle."""

    def __init__(self, directory: str, signer: str = "") -> None:
        self.directory = directory
        self.signer = signer.replace(" ", "").upper()
        self.failures = []  # type: t.List[str]
        self.not_checked = []  # type: t.List[str]
        self.chains = {}  # type: t.Dict[str, Chain]
        self.hours = {}  # type: t.Dict[str, int]
        self.wanted = {}  # type: t.Dict[str, t.Dict[int, str]]
        self.records = 0
        self.unchained = 0
        self.latest = ""  # the highest place in time so far
        self.altered = set()  # type: t.Set[t.Tuple[str, int]]
        self.broken = set()  # type: t.Set[t.Tuple[str, int]]

    def fail(self, text: str) -> None:
        """Something is not as it should be."""
        self.failures.append(text)
        if len(self.failures) <= MOST_TOLD:
            say("FAILED: " + text)

    def run(self) -> bool:
        """Whether all is well."""
        try:
            with open(os.path.join(self.directory, STATEMENT), "rb") as handle:
                raw = handle.read()
            statement = json.loads(raw.decode("utf-8"))
            self._run(statement)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.fail(f"the bundle cannot be read as one: {type(error).__name__}: {error}")
        if len(self.failures) > MOST_TOLD:
            say(f"FAILED: ... and {len(self.failures) - MOST_TOLD} more")
        for text in self.not_checked:
            say("not checked: " + text)
        return not self.failures

    def _run(self, statement: t.Any) -> None:
        window = statement["window"]
        say("instance {}, {} to {}".format(statement["instance"], window["start"], window["end"]))
        self.check_signature(statement)
        self.check_files(statement["files"])
        for anchor in statement["anchors"]:
            self.wanted.setdefault(anchor["chain"], {})[anchor["seq"]] = anchor["hash"]
        for name in sorted(statement["files"]):
            if name.startswith("records/"):
                self.read_records(name, statement["files"][name])
        self.check_chains(statement)
        self.check_counts(statement)
        self.check_findings(statement)
        say(f"{self.records} records read, {self.unchained} of them without a chain")
        for text in statement["not_proven"]:
            say("the statement does not prove: " + text)

    # -- the files

    def check_files(self, files: t.Any) -> None:
        """Exactly these files, each with its hash."""
        found = set()
        for folder, _names, names in os.walk(self.directory):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.directory).replace(os.sep, "/")
                found.add(path)
                if os.path.islink(os.path.join(folder, name)):
                    self.fail(f"{path} is a link")
        for name in sorted(found - set(files) - {STATEMENT, SIGNATURE}):
            self.fail(f"{name} is not in the statement's list of files")
        for name in sorted(set(files) - found):
            self.fail(f"{name} is missing")
        for name in sorted(set(files) & found):
            digest, size = hashlib.sha256(), 0
            with open(os.path.join(self.directory, name), "rb") as handle:
                for data in iter(lambda: handle.read(1 << 20), b""):
                    digest.update(data)
                    size += len(data)
            if digest.hexdigest() != files[name]["sha256"] or size != files[name]["bytes"]:
                self.fail(f"{name} has not the SHA-256 and size that the statement gives")

    def check_signature(self, statement: t.Any) -> None:
        """gpg's word, in a home of its own that knows this bundle's key only."""
        signature = os.path.join(self.directory, SIGNATURE)
        if not statement["signed_by"]:
            self.not_checked.append("who made the bundle: its statement is not signed")
            if os.path.exists(signature) or self.signer:
                self.fail("the statement says that it is not signed")
            return
        if not os.path.exists(signature):
            self.fail(f"{SIGNATURE} is missing")
            return
        if self.signer and self.signer not in statement["signed_by"].upper():
            self.fail("signed by {} and not by {}".format(statement["signed_by"], self.signer))
        gpg = shutil.which("gpg") or shutil.which("gpg2")
        if gpg is None:
            self.not_checked.append("the signature: there is no gpg program here")
            return
        home = tempfile.mkdtemp(prefix="check-")
        try:
            self._gpg_verify(gpg, home, signature, statement["signed_by"])
        finally:
            shutil.rmtree(home, ignore_errors=True)
        if not self.signer:
            self.not_checked.append(
                "whose key {} is: compare it with one that you were given elsewhere (--signer)".format(
                    statement["signed_by"]
                )
            )

    def _gpg_verify(self, gpg: str, home: str, signature: str, signed_by: str) -> None:
        common = [gpg, "--homedir", home, "--batch", "--no-options", "--no-autostart", "--status-fd", "1"]
        signer = os.path.join(self.directory, "signer.asc")
        statement = os.path.join(self.directory, STATEMENT)
        for arguments in (["--import", signer], ["--verify", signature, statement]):
            done = subprocess.run(  # noqa: UP022 - Python 3.6 has no capture_output
                common + arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
        lines = [line.split(" ") for line in done.stdout.decode("utf-8", "replace").splitlines()]
        valid = [line for line in lines if line[:2] == ["[GNUPG:]", "VALIDSIG"]]
        if done.returncode == 0 and len(valid) == 1 and signed_by in (valid[0][2], valid[0][-1]):
            say(f"the signature of {signed_by} is good")
        else:
            self.fail("the signature of the statement is not good")

    # -- the records

    def read_records(self, name: str, told: t.Any) -> None:
        """One file of records."""
        count = 0
        try:
            with gzip.open(os.path.join(self.directory, name), "rb") as handle:
                for line in iter(lambda: handle.readline(LONGEST_LINE), b""):
                    count += 1
                    self.take(line, f"{name}, line {count}")
        except (EOFError, OSError, zlib.error) as error:
            self.fail(f"{name} cannot be read to its end: {error}")
        if count != told["records"]:
            self.fail("{} has {} records, not {}".format(name, count, told["records"]))

    def take(self, line: bytes, where: str) -> None:
        """The next record."""
        self.records += 1
        match = RECORD.match(line)
        if match is None or match.end() != len(line):
            self.take_unchained(line, where)
            return
        name, prev, time, head = (match.group(n).decode("ascii") for n in (1, 3, 4, 5))
        number = int(match.group(2))
        self.hours[time[:13]] = self.hours.get(time[:13], 0) + 1
        if hashlib.sha256(line[: match.start(5) - len(b',"hash":"')]).hexdigest() != head:
            self.altered.add((name, number))
            self.fail(f"{where}: record {number} of chain {name} ({time}) was altered")
        chain = self.chains.get(name)
        if chain is None:
            chain = self.chains[name] = Chain(number, prev)
        elif number <= chain.last:
            self.fail(f"{where}: record {number} of chain {name} ({time}) stands after {chain.last}")
        elif number > chain.last + 1:
            chain.gaps.append([chain.last + 1, number - 1])
        elif prev != chain.head:
            self.broken.add((name, number))
            self.fail(f"{where}: record {number} of chain {name} ({time}) does not follow the record before it")
        chain.last, chain.head, chain.count = number, head, chain.count + 1
        if number in self.wanted.get(name, {}):
            chain.anchors[number] = head
        chain.latest = max(chain.latest, time)
        self.in_order(chain.latest, where)

    def take_unchained(self, line: bytes, where: str) -> None:
        """A record of an older installation, or nothing that belongs here."""
        self.unchained += 1
        try:
            raw = json.loads(line.decode("utf-8", "replace"))
        except ValueError:
            raw = None
        if not isinstance(raw, dict) or not isinstance(raw.get("trace_id"), str) or line.startswith(b'{"chain":'):
            self.fail(f"{where} is no record")

    def in_order(self, time: str, where: str) -> None:
        """Chains are merged by time."""
        if time < self.latest:
            self.fail(f"{where}: out of order: {time} after {self.latest}")
        self.latest = max(self.latest, time)

    # -- what the statement says of them

    def check_chains(self, statement: t.Any) -> None:
        """First, last, number, links to the outside, gaps; then the anchors."""
        told = {chain["chain"]: chain for chain in statement["chains"]}
        for name in sorted(set(told) | set(self.chains)):
            if name not in told or name not in self.chains:
                self.fail("chain {} is in the {} only".format(name, "records" if name not in told else "statement"))
                continue
            chain, said = self.chains[name], told[name]
            for field in ("first", "last", "count", "prev", "head", "gaps"):
                if getattr(chain, field) != said[field]:
                    self.fail(f"chain {name}: the statement says {field} {said[field]}")
            before, after = said["before"], said["after"]
            if before and (before["seq"] + 1, before["hash"]) != (chain.first, chain.prev):
                self.fail("chain {}: record {} does not follow record {}".format(name, chain.first, before["seq"]))
            if after and (after["seq"] - 1, after["prev"]) != (chain.last, chain.head):
                self.fail("chain {}: record {} does not follow record {}".format(name, after["seq"], chain.last))
            for first, last in chain.gaps:
                self.fail(f"chain {name}: records {first} to {last} are missing")
        for anchor in statement["anchors"]:
            found = self.chains.get(anchor["chain"])
            head = found.anchors.get(anchor["seq"]) if found else None
            if (head == anchor["hash"]) != (anchor["state"] == "equal"):
                self.fail("record {seq} of chain {chain}: the statement calls its anchor {state}".format(**anchor))
            if head is not None and head != anchor["hash"]:
                self.fail("record {seq} of chain {chain} is not the one that {source} knows".format(**anchor))

    def check_counts(self, statement: t.Any) -> None:
        """By hour, and in all."""
        told = statement["records"]
        if (self.records, self.unchained) != (told["count"], told["unchained"]):
            self.fail(f"{self.records} records ({self.unchained} without a chain), and not as stated")
        exported = {hour: row["exported"] for hour, row in statement["conservation"]["hours"].items()}
        for hour in sorted(set(exported) | set(self.hours)):
            if self.hours.get(hour, 0) > exported.get(hour, 0):
                self.fail(f"hour {hour}: {self.hours.get(hour, 0)} records, not {exported.get(hour, 0)}")
        rest = sum(exported.values()) - sum(self.hours.values())
        if rest != self.unchained:
            self.fail(f"the hours add up to {rest} records without a chain, not {self.unchained}")
        total = statement["conservation"]["total"]
        for column in total:
            if sum(row[column] for row in statement["conservation"]["hours"].values()) != total[column]:
                self.fail(f"the column {column} does not add up")
        if total["written"] != total["exported"] + total["missing"]:
            self.fail("written is not exported and missing together")

    def check_findings(self, statement: t.Any) -> None:
        """What is wrong according to the statement itself; and that it tells all that was found here."""
        findings = [f for f in statement["findings"] if f["scope"] == "exported records"]
        for finding in findings:
            if not finding["innocent"]:
                self.fail(
                    "the statement itself finds: {kind}, chain {chain}, {first} to {last} "
                    "({since} to {until}) {where}: {why}".format(**finding)
                )
        bad = [finding for finding in findings if not finding["innocent"]]
        if statement["ok"] is not (not bad):
            self.fail("the statement calls itself right, and is not")
        told = {(f["kind"], f["chain"], f["last"]) for f in findings}
        for kind, found in (("altered", self.altered), ("broken_link", self.broken)):
            for name, number in sorted(found)[:MOST_TOLD]:
                if (kind, name, number) not in told:
                    self.fail(f"the statement does not tell of record {number} of chain {name} ({kind})")


def main(arguments: t.List[str]) -> int:  # noqa: UP006 - Python 3.6 cannot say list[str]
    """The exit code."""
    signer = ""
    if "--signer" in arguments:
        place = arguments.index("--signer")
        signer = "".join(arguments[place + 1 : place + 2])
        del arguments[place : place + 2]
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        say(__doc__ or "")
        return 2
    directory = arguments[0] if arguments else os.path.dirname(os.path.abspath(__file__))
    right = Check(directory, signer).run()
    say("RESULT: " + ("the bundle is whole, and what its statement says" if right else "NOT all is right, see above"))
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
