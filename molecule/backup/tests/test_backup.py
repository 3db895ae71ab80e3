# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the units do by themselves: they are really started, and the repository is read back. In this order."""

from __future__ import annotations

import json
import time
import typing as t

import testinfra

ROOT = "/data/qwen3guard-gen-web"
STORE = "/srv/store"
STATE = "/var/lib/guardops-qwen3guard"
_PATIENCE = 600  # seconds; a playbook's run takes a few, on a busy machine many: the units are nice


def snapshots(host: testinfra.host.Host, layer: str) -> list[str]:
    """Those that exist: with a manifest."""
    found = host.run(f"cd {STORE}/*/{layer} && ls -d */manifest.json").stdout.split()
    return [path.split("/")[0] for path in found]


def until(what: str, condition: t.Callable[[], bool]) -> None:
    """Wait for what a unit does in the background."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {_PATIENCE} s"
        time.sleep(0.5)


def until_idle(host: testinfra.host.Host, *units: str) -> None:
    def idle() -> bool:
        states = host.run(f"systemctl show --property=ActiveState --value {' '.join(units)}").stdout.split()
        return not {"activating", "active", "deactivating", "reloading"}.intersection(states)

    until(f"the end of {', '.join(units)}", idle)


def journal(host: testinfra.host.Host, unit: str, *options: str) -> str:
    return host.check_output(f"journalctl --quiet --output=cat --unit={unit} {' '.join(options)}")


def alerts(host: testinfra.host.Host) -> list[str]:
    return host.run("cat /run/alerts").stdout.splitlines()


def test_role_took_the_first_snapshots(host: testinfra.host.Host) -> None:
    until_idle(host, "qwen3guard-backup@config.service")
    for layer in ("model", "config", "logs"):
        assert snapshots(host, layer)[0].startswith("000001-"), layer
    assert alerts(host) == []


def test_timers_come_at_the_right_times(host: testinfra.host.Host) -> None:
    listed = host.check_output("systemctl list-timers --all --output=json qwen3guard-*")
    units = {item["unit"]: item for item in json.loads(listed)}
    layers = ("model", "config", "logs")
    assert set(units) == {
        "qwen3guard-backup@logs.timer",
        "qwen3guard-backup@config.timer",
        "qwen3guard-backup-full@logs.timer",
        "qwen3guard-prune@logs.timer",
        *(f"qwen3guard-verify@{layer}.timer" for layer in layers),
        *(f"qwen3guard-verify-full@{layer}.timer" for layer in layers),
    }
    assert all(item["next"] for item in units.values())
    friday = host.check_output("systemctl cat qwen3guard-verify-full@model.timer")
    assert "OnCalendar=Fri *-*-* 15:00:00 Asia/Shanghai\n" in friday


def test_inventory_is_for_root_alone(host: testinfra.host.Host) -> None:
    inventory = host.file("/etc/guardops-qwen3guard/inventory.yml")
    assert (inventory.user, inventory.mode) == ("root", 0o600)


def test_hourly_increment(host: testinfra.host.Host) -> None:
    before = snapshots(host, "logs")
    line = '{"trace_id": "qwg-20261123-8b-0000000000000004", "verdict": "safe"}'
    host.run_expect([0], f"echo '{line}' >>{ROOT}/logs/audit.log && systemctl start qwen3guard-backup@logs")
    (new,) = set(snapshots(host, "logs")) - set(before)
    manifest = json.loads(host.check_output(f"cat {STORE}/*/logs/{new}/manifest.json"))
    assert (manifest["type"], manifest["content_bytes"]) == ("increment", len(line) + 1)
    assert host.file("/var/lib/qwen3guard-ledger/archived.json").mode == 0o644


def test_change_of_the_configuration_is_backed_up_at_once(host: testinfra.host.Host) -> None:
    """Below a directory, in a new one, and never again when nothing changes."""
    for path in ("web/routes/audit.conf", "web/new/deep/limits.conf"):
        before = snapshots(host, "config")
        host.run_expect([0], f"mkdir -p $(dirname {ROOT}/config/{path}) && echo 'more = 1' >>{ROOT}/config/{path}")
        until("a snapshot", lambda before=before: snapshots(host, "config") > before)
        until_idle(host, "qwen3guard-backup@config.service")
    told = host.check_output("systemctl cat qwen3guard-backup@config.path")
    assert f"PathChanged={ROOT}/config/web/new/deep" in told.splitlines()
    before = snapshots(host, "config")
    host.run_expect([0], f"echo 'more = 2' >>{ROOT}/config/web/new/deep/limits.conf")
    until("a snapshot", lambda: snapshots(host, "config") > before)
    until_idle(host, "qwen3guard-backup@config.service")
    runs = host.check_output("systemctl show --property=InvocationID qwen3guard-backup@config.service")
    time.sleep(3)  # a watch that sees the backup's own commit would start it again and again
    assert host.check_output("systemctl show --property=InvocationID qwen3guard-backup@config.service") == runs


def test_failure_alerts_once_and_is_cleared(host: testinfra.host.Host) -> None:
    unit = "qwen3guard-backup@logs.service"
    record = f"{STATE}/failures/{unit}.json"
    alerting = f"qwen3guard-alert@{unit}.service"
    told = journal(host, alerting, "--priority=err").count(f"{unit} failed")
    host.run_expect([0], f"mv {STORE} {STORE}.away")
    try:
        for count in (1, 2):
            assert host.run(f"systemctl start {unit}").rc != 0
            until("the alert", lambda count=count: host.run(f"grep '\"count\": {count}' {record}").rc == 0)
        until_idle(host, alerting)
    finally:
        host.run_expect([0], f"mv {STORE}.away {STORE}")
    assert alerts(host) == [f"{unit} raised"]
    assert journal(host, alerting, "--priority=err").count(f"{unit} failed") == told + 1
    words = "\n".join(json.loads(host.file(record).content_string)["lines"])
    assert STORE in words, words
    host.run_expect([0], f"systemctl start {unit}")
    assert not host.file(record).exists
    assert alerts(host) == [f"{unit} raised", f"{unit} cleared"]


def test_units_of_one_layer_do_not_overlap(host: testinfra.host.Host) -> None:
    units = ("qwen3guard-backup@logs.service", "qwen3guard-backup-full@logs.service")
    before = snapshots(host, "logs")
    host.run_expect([0], f"echo '{{}}' >>{ROOT}/logs/audit.log && systemctl start --no-block {' '.join(units)}")
    until("a full", lambda: len(snapshots(host, "logs")) > len(before))
    until_idle(host, *units)
    results = host.check_output(f"systemctl show --property=Result --value {' '.join(units)}")
    assert results.split() == ["success", "success"]
    told = "".join(journal(host, unit) for unit in units)
    assert "waiting for it" in told
    assert not host.run(f"ls {STATE}/failures").stdout


def test_backup_by_hand_is_waited_for_or_refused(host: testinfra.host.Host) -> None:
    """The engine's lock is held, as by a run that was started by hand."""
    instance = host.check_output(f"basename {STORE}/*")
    lock = f"{STATE}/{instance}/logs.lock"
    unit = "qwen3guard-backup@logs.service"
    host.run_expect([0], f"systemd-run --quiet --unit=holder flock {lock} sleep infinity")
    refused = host.run('qwen3guard backup -e \'{"guardops_layers": ["logs"]}\'')
    assert refused.rc != 0
    assert "no other run at the same time" in refused.stdout
    host.run_expect([0], f"systemctl start --no-block {unit}")
    until("the wait", lambda: host.run(f"pgrep --full 'flock --timeout [0-9]+ {lock}'").rc == 0)
    host.run_expect([0], "systemctl stop holder")
    until_idle(host, unit)
    assert host.check_output(f"systemctl show --property=Result --value {unit}") == "success"


def test_verification_restores_and_loads(host: testinfra.host.Host) -> None:
    for unit, level in (("qwen3guard-verify@logs", "decrypted"), ("qwen3guard-verify-full@model", "loaded")):
        host.run_expect([0], f"systemctl start {unit}")
        layer = unit.split("@")[1]
        newest = snapshots(host, layer)[-1]
        kept = json.loads(host.check_output(f"cat {STORE}/*/verifications/{layer}/{newest}.json"))
        assert kept["verdicts"][level]["ok"] is True


def test_weekly_verification_tells_its_result(host: testinfra.host.Host) -> None:
    """After the test before. A quick one tells nothing."""
    assert alerts(host)[-1] == "qwen3guard-verify-full@model.service succeeded"
    assert not [line for line in alerts(host) if "qwen3guard-verify@" in line]
    told = host.file("/run/results").content_string.splitlines()
    assert f"model {snapshots(host, 'model')[-1]}: loaded in" in told[1]
    assert not host.file("/run/guardops-qwen3guard/qwen3guard-verify-full@model.service").exists


def test_retention_runs_by_its_unit_and_keeps_what_is_young(host: testinfra.host.Host) -> None:
    before = snapshots(host, "logs")
    host.run_expect([0], "systemctl start qwen3guard-prune@logs")
    assert snapshots(host, "logs") == before
    assert f"logs: {len(before)} snapshots stay" in journal(host, "qwen3guard-prune@logs")


def test_units_may_not_write_elsewhere(host: testinfra.host.Host) -> None:
    shown = host.check_output(
        "systemctl show --property=ProtectSystem,NoNewPrivileges,ReadWritePaths qwen3guard-backup@logs"
    )
    assert "ProtectSystem=strict" in shown
    assert "NoNewPrivileges=yes" in shown


def test_host_restores_itself(host: testinfra.host.Host) -> None:
    """The data root is lost; what comes back is what was there."""
    names = "find . -mindepth 1 -name .git -prune -o -printf '%p %U:%G %m %s\\n' -type f -exec sha256sum {} \\;"
    listing = f"cd {ROOT} && {names} | sort"
    host.run_expect([0], "systemctl start qwen3guard-backup@config qwen3guard-backup@logs qwen3guard-backup@model")
    before = host.check_output(listing)
    host.run_expect([0], f"systemctl stop qwen3guard-backup@config.path && rm -r {ROOT}")
    host.run_expect([0], f"mkdir -p {ROOT} && qwen3guard restore")
    assert host.check_output(listing) == before
