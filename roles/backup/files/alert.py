# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell once that a unit failed, remember it in a file, and forget it when the unit works again; tell what it did.

usage: alert.py SETTINGS raise|clear UNIT
       alert.py SETTINGS succeed UNIT REPORTS

The file is UNIT.json in the directory that SETTINGS names; a patrol may read it. A unit that goes on failing is told of
again after a day, not each time. Besides the journal, the command that SETTINGS names is told, or where it names none
the program `tell` beside this file, if the role patrol has put it there. UNIT and what happened are added to it as
arguments, which is `raised`, `still-failing` or `cleared`.

With `succeed` the command gets `succeeded`, and the result as text on its standard input: what the playbook's report
says that lies in the directory REPORTS. It is told each time.
"""

from __future__ import annotations

import datetime
import glob
import json
import os
import subprocess
import sys
import typing as t

_AGAIN = datetime.timedelta(days=1)
_LINES = 40
# Seconds for each of systemd's two programs, and for the command: together less than the unit has.
_PATIENCE, _LONGER = 25, 240
_ERROR, _NOTICE = "<3>", "<5>"  # systemd takes these for the priority of a line


def ask(*command: str) -> str:
    """What a program says; what is asked here only helps to understand, so a failure is no answer."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def describe(unit: str) -> dict[str, t.Any]:
    """How the unit's last run ended, with its last words."""
    wanted = ("Description", "Result", "ExecMainStatus", "InvocationID")
    told = ask("systemctl", "show", f"--property={','.join(wanted)}", "--", unit)
    facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    invocation = facts.get("InvocationID", "")
    words = ask(
        "journalctl", "--quiet", "--output=cat", f"--lines={_LINES}", f"_SYSTEMD_INVOCATION_ID={invocation}"
    )  # fmt: skip
    return {
        "unit": unit,
        "description": facts.get("Description", ""),
        "result": facts.get("Result", ""),
        "exit_status": facts.get("ExecMainStatus", ""),
        "invocation": invocation,
        "lines": words.splitlines(),
    }


def load(path: str) -> dict[str, t.Any]:
    """What is remembered; empty where there is nothing, or nothing that can be read."""
    try:
        with open(path, encoding="utf-8") as handle:
            known = json.load(handle)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def save(path: str, record: dict[str, t.Any]) -> bool:
    """Replace the file as a whole. False where that is not possible: what was told is then told again."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as handle:
            json.dump(record, handle, indent=1, ensure_ascii=False)
        os.replace(f"{path}.new", path)
    except OSError as error:
        print(f"{_ERROR}{path}: expected a file that can be written, found {error.strerror}.", flush=True)
        return False
    return True


def tell(command: list[str], unit: str, event: str, line: str, text: str = "") -> bool:
    """One line for the journal, and the command, which can read the text. False when the command did not work."""
    print(f"{_NOTICE if event in ('cleared', 'succeeded') else _ERROR}{line}", flush=True)
    if not command:
        return True
    try:
        rc = subprocess.run([*command, unit, event], input=text.encode(), timeout=_LONGER, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{_ERROR}{command[0]}: {error}", flush=True)
        return False
    if rc != 0:
        print(f"{_ERROR}{command[0]}: expected it to end with 0, found {rc}. Nobody may know of this.", flush=True)
    return rc == 0


def is_due(known: dict[str, t.Any], now: datetime.datetime) -> bool:
    """Whether it is time to tell again."""
    try:
        return now - datetime.datetime.fromisoformat(known["told"]) >= _AGAIN
    except (KeyError, TypeError, ValueError):
        return True


def failed(unit: str, path: str, command: list[str]) -> bool:
    now = datetime.datetime.now(datetime.timezone.utc)
    known = load(path)
    before = known.get("count", 0)
    count = before + 1 if isinstance(before, int) else 1
    stamp = now.isoformat(timespec="seconds")
    record = {**describe(unit), "since": known.get("since", stamp), "last": stamp, "count": count}
    record["told"] = known.get("told", "")
    done = True
    if is_due(known, now):
        event = "still-failing" if known else "raised"
        again = f", {count} times since {record['since']}" if known else ""
        line = f"{unit} failed{again} ({record['result']}, exit status {record['exit_status']}). See {path}."
        done = tell(command, unit, event, line)
        record["told"] = stamp if done else ""  # one that reached nobody is tried again at the next failure
    return save(path, record) and done


def worked(unit: str, path: str, command: list[str]) -> bool:
    known = load(path)
    if not os.path.exists(path):
        return True
    line = f"{unit} works again; it had failed {known.get('count', '?')} times since {known.get('since', '?')}."
    if not tell(command, unit, "cleared", line):
        return False  # it stays, and is told after the next run that works
    try:
        os.unlink(path)
    except OSError as error:
        print(f"{_ERROR}{path}: expected a file that can be removed, found {error.strerror}.", flush=True)
        return False
    return True


def succeeded(unit: str, command: list[str], reports: str) -> bool:
    """Not remembered: a success that nobody could be told is followed by the next one."""
    shown = ask("systemctl", "show", "--property=Description", "--", unit)
    what = shown.partition("Description=")[2].partition("\n")[0]
    text = "\n".join([f"{what or unit}: done.", *told_by(reports)]) + "\n"
    return tell(command, unit, "succeeded", f"{unit} succeeded.", text)


def told_by(reports: str) -> list[str]:
    """What the reports say of each layer, in lines for people."""
    lines: list[str] = []
    for path in sorted(glob.glob(os.path.join(glob.escape(reports), "*.json"))):
        try:
            with open(path, encoding="utf-8") as handle:
                results = json.load(handle)
        except (OSError, ValueError):
            continue
        for result in results if isinstance(results, list) else []:
            lines += of_layer(result) if isinstance(result, dict) else []
    return lines or ["Its journal says what it did."]


def of_layer(result: dict[str, t.Any]) -> list[str]:
    """One result of backup, verify or prune; ``check`` is the item of verify's loop: a layer and a level."""
    layer = result.get("layer") or (result.get("check") or ["?"])[0]
    seconds = f"in {result.get('seconds', '?')} s"
    if "level" in result:
        did = f"{layer} {result.get('snapshot')}: {result['level']} {seconds}"
    elif "removed" in result:
        did = f"{layer}: {len(result['removed'])} snapshots removed, {len(result.get('keep', []))} stay, {seconds}"
        cold = result.get("cold") or {}
        did += f"; old parts go to {cold.get('storage_class')}" if cold.get("changed") else ""
    else:
        did = f"{layer}: {result.get('reason')} {seconds}: {result.get('snapshot') or 'no snapshot'}"
    return [did, *(f"{layer}, not checked: {text}" for text in result.get("not_checked") or [])]


def beside() -> list[str]:
    """What the role patrol installs, once there is somebody to tell; looked for each time, since it comes later."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tell")
    return [path] if os.access(path, os.X_OK) else []


def main() -> int:
    settings_file, event, unit, *reports = sys.argv[1:]
    with open(settings_file, encoding="utf-8") as handle:
        settings = json.load(handle)
    command = settings["command"] or beside()
    if event == "succeed":
        return 0 if succeeded(unit, command, *reports) else 1
    path = os.path.join(settings["failures"], f"{unit}.json")
    work = {"raise": failed, "clear": worked}[event]
    return 0 if work(unit, path, command) else 1


if __name__ == "__main__":
    sys.exit(main())
