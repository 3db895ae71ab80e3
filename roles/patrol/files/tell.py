# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell at once, and where the patrol tells it, that a unit failed or works again.

usage: tell.py SETTINGS UNIT raised|still-failing|cleared|succeeded
       tell.py SETTINGS --check

SETTINGS is what the patrol is told. What was told is remembered where the patrol remembers it, so neither repeats the
other. `succeeded` is told each time, with the text that comes on standard input: the result of a verification, say. It
ends with 0 when everybody who had to be told was reached. With --check it sends nothing, and ends with 0 when all URLs
are some that messages can be sent to.

It runs in the collection that the role runtime keeps on the host, so it always fits the modules there; PYTHONPATH leads
to them. Without Ansible, since a unit often fails where Ansible would fail too: on a full disk, say.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import sys
import typing as t

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import alerts
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.notify import Message

EVENTS = {"raised": True, "still-failing": True, "cleared": False}  # and whether the unit failed
SUCCEEDED = "succeeded"


def result(instance: str, unit: str) -> Message:
    """What somebody hands over of a unit that did its work."""
    lines = sys.stdin.read().splitlines()
    return Message(f"Guard {instance}: {unit} succeeded", [*lines, f"From {socket.gethostname()}"], urgent=False)


def main() -> int:
    checking = sys.argv[2:] == ["--check"]
    if not checking and (len(sys.argv) != 4 or sys.argv[3] not in (*EVENTS, SUCCEEDED)):
        events = "|".join((*EVENTS, SUCCEEDED))
        sys.stderr.write(f"usage: tell.py SETTINGS UNIT {events}\n       tell.py SETTINGS --check\n")
        return 2
    settings = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        if checking:
            alerts.check_urls(settings["guardops_alert_urls"], settings.get("guardops_heartbeat_url", ""))
        else:
            tell(settings, *sys.argv[2:])
    except GuardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def tell(settings: dict[str, t.Any], unit: str, event: str) -> None:
    instance = settings["guardops_instance"]
    options = alerts.Options(
        source=instance,
        state_path=os.path.join(settings["guardops_state_dir"], "alerts", f"{instance}.json"),
    )
    if event == SUCCEEDED:
        print(f"Told: {', '.join(alerts.tell_result(result(instance, unit), settings['guardops_alert_urls']))}.")
        return
    verdict = alerts.of_unit(instance, unit, EVENTS[event], socket.gethostname())
    outcome = alerts.alert(verdict, settings["guardops_alert_urls"], options)
    print(f"Told: {', '.join(outcome.sent) or 'nobody, since it is known'}.")


if __name__ == "__main__":
    sys.exit(main())
