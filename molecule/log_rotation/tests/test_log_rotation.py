# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No record is lost: not by rotations under load, not by those that fail, not by the removal of old logs."""

from __future__ import annotations

import collections
import gzip
import io
import json
import subprocess
import tarfile
import time
import typing as t

import testinfra

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.chain import ChainChecker

LOGS = "/data/qwen3guard-gen-web/logs"
LEDGER = "/var/lib/qwen3guard-ledger/archived.json"
FORCE = (
    "runuser --user=aiuser -- /usr/sbin/logrotate --force --state /var/lib/qwen3guard-logrotate/status"
    " /etc/qwen3guard/logrotate.conf"
)
UNITS = ["qwen3guard-logrotate", "qwen3guard-log-cleanup"]
MOST_EXPOSED = 1.2  # what `systemd-analyze security` may say of a unit, from 0 (locked in) to 10
ROTATIONS = 12

# Asks audits by 8 connections until a file is there, and prints the trace_id of each answer.
ASK = """
import concurrent.futures, http.client, json, os
answered = [] # printed at the end: threads that print at once garble each other's lines
def ask(number):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    while not os.path.exists("/run/enough"):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/audit", json.dumps({"text": "a text of a user " * 20}), headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if answer.status == 200:
            answered.append(found["trace_id"])
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(ask, range(8)))
print("\\n".join(answered))
"""


def under_load(host: testinfra.host.Host, command: str) -> tuple[list[str], str]:
    """The trace_ids of all audits that were answered while a command ran, and what it printed."""
    script = f'python3 -c "$1" >/run/answered & {command}; touch /run/enough; wait $!'
    done = host.run("rm -f /run/enough; bash -c %s bash %s", script, ASK)
    assert done.rc == 0, done.stderr
    return host.file("/run/answered").content_string.split(), done.stdout


def read_logs(host: testinfra.host.Host) -> dict[str, list[bytes]]:
    """The lines of each file, on the controller."""
    words = ["podman", "exec", host.backend.name, "tar", "--create", "--directory", LOGS, "."]
    archive = subprocess.run(words, capture_output=True, check=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("./")
            file = tar.extractfile(member)
            if file and name.startswith("audit.log"):
                content = file.read()
                found[name] = (gzip.decompress(content) if name.endswith(".gz") else content).splitlines(keepends=True)
    return found


def expect_all(host: testinfra.host.Host, answered: list[str]) -> dict[str, list[bytes]]:
    """Each answered audit is recorded exactly once, and no chain has a gap or a wrong link."""
    logs = read_logs(host)
    checker = ChainChecker()
    written: collections.Counter[str] = collections.Counter()
    for name, lines in logs.items():
        for line in lines:
            record = checker.feed(line, name)
            assert record is not None, (name, line)
            written[record.trace_id] += 1
    assert answered
    assert len(set(answered)) == len(answered)
    assert [trace_id for trace_id in answered if written[trace_id] != 1] == []
    report = checker.finish()
    assert report.records == sum(written.values())
    assert [str(finding) for finding in report.findings if not finding.innocent] == []
    assert len({chain.chain for chain in report.chains}) == 1
    return logs


def test_rotation_under_load_loses_nothing(host: testinfra.host.Host) -> None:
    rotate = f"for turn in $(seq {ROTATIONS}); do sleep 1.1; {FORCE} || echo failed; done"
    answered, printed = under_load(host, rotate)
    print(f"{host.backend.name}: {len(answered)} audits answered during {ROTATIONS} rotations")
    assert printed == ""
    logs = expect_all(host, answered)
    # The writer saw renames and nothing else: of a truncated or removed file it would tell by a record.
    assert [line for lines in logs.values() for line in lines if b'"event":"repair"' in line] == []
    # All but the newest are compressed, and all have records: the writer followed each time.
    assert len([name for name in logs if name.endswith(".gz")]) >= ROTATIONS - 1
    assert [name for name, lines in logs.items() if not lines] == []
    for name in logs:
        file = host.file(f"{LOGS}/{name}")
        assert (file.user, file.group, file.mode & 0o777) == ("aiuser", "aiuser", 0o640)
    # What was rotated and compressed is still found by its trace_id.
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"
    url = f"http://127.0.0.1:8080/api/audit/{answered[0]}"
    assert json.loads(host.check_output("python3 -c %s %s", program, url))["intact"] is True


def test_rotation_without_a_free_name_loses_nothing(host: testinfra.host.Host) -> None:
    in_the_way = (
        f"now=$(date +%s); for second in $(seq 60); do "
        f"mkdir {LOGS}/audit.log-$(date +%Y%m%d)-$((now + second - 1)); done; "
    )
    failing = f"for turn in 1 2 3; do sleep 1.1; {FORCE} 2>/dev/null && echo rotated; done; rmdir {LOGS}/audit.log-*/"
    before = host.file(f"{LOGS}/audit.log").inode
    answered, printed = under_load(host, in_the_way + failing)
    assert printed == ""
    assert host.file(f"{LOGS}/audit.log").inode == before
    expect_all(host, answered)


def test_full_disk_loses_nothing_that_was_answered(host: testinfra.host.Host) -> None:
    # The file to be compressed is large, so that there is no room for what comes of it.
    fill = f"sleep 1; {FORCE}; head --bytes=1G /dev/zero >{LOGS}/ballast 2>/dev/null; "
    rotate = (
        f"sleep 1.1; {FORCE} 2>/dev/null && echo rotated; sleep 1; rm {LOGS}/ballast; sleep 1; {FORCE} || echo failed"
    )
    answered, printed = under_load(host, fill + rotate)
    assert printed == ""
    logs = expect_all(host, answered)
    assert len([name for name in logs if not name.endswith(".gz")]) <= 2
    # A name has the second in it, so logrotate refuses a second rotation within one.
    rotated = host.run(f"sleep 1.1; {FORCE}")
    assert (rotated.rc, rotated.stderr) == (0, "")


def test_timer_rotates_what_is_due(host: testinfra.host.Host) -> None:
    def names() -> set[str]:
        return set(host.file(LOGS).listdir())

    assert host.service("qwen3guard-logrotate.timer").is_running
    answered, _printed = under_load(host, "sleep 1.1")
    before = names()
    assert host.run("systemctl start qwen3guard-logrotate.service").rc == 0
    assert names() == before  # nothing is due
    assert host.run("sed -i 's/ 20[0-9][0-9]-/ 2020-/' /var/lib/qwen3guard-logrotate/status").rc == 0
    assert host.run("systemctl start qwen3guard-logrotate.service").rc == 0
    assert names() - before
    expect_all(host, answered)
    assert host.run("grep -rl qwen3guard /etc/logrotate.conf /etc/logrotate.d").stdout == ""


def test_only_archived_logs_are_removed(host: testinfra.host.Host) -> None:
    logs = {name: lines for name, lines in read_logs(host).items() if name.endswith(".gz")}
    kept, removed = sorted(logs)[:2]
    for name in (kept, removed):
        assert host.run(f"touch --date='40 days ago' {LOGS}/{name}").rc == 0
    archive(host, [logs[removed], logs[kept][1:]])
    assert host.run("systemctl start qwen3guard-log-cleanup.service").rc != 0
    assert host.file(f"{LOGS}/{kept}").exists
    assert not host.file(f"{LOGS}/{removed}").exists
    archive(host, [logs[removed], logs[kept]])
    assert host.run("systemctl start qwen3guard-log-cleanup.service").rc == 0
    assert not host.file(f"{LOGS}/{kept}").exists
    assert set(read_logs(host)) >= set(logs) - {kept, removed}  # too young


def archive(host: testinfra.host.Host, files: t.Iterable[list[bytes]]) -> None:
    """Write a ledger as the backup does."""
    made = time.strftime("%Y%m%d_%H%M", time.gmtime(time.time() + 60))
    entries = []
    for lines in files:
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        place = {"chain": first["chain"], "first": first["seq"], "last": last["seq"]}
        entries.append({**place, "snapshot": "000001-0", "status": f"archived_to_test_{made}"})
    told = {"format": 1, "remote": "test", "snapshot": "000001-0", "archived": entries}
    assert host.run("printf %%s %s >%s", json.dumps(told), LEDGER).rc == 0


def test_units_are_locked_in(host: testinfra.host.Host) -> None:
    for unit in UNITS:
        assert host.service(f"{unit}.timer").is_enabled
        last = host.check_output(f"systemd-analyze security --no-pager {unit}.service").splitlines()[-1]
        assert float(last.rpartition(": ")[2].split()[0]) <= MOST_EXPOSED, last
