# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""roles/patrol/files/tell.py reaches those whom the patrol tells, once, and says no secret."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from support.checkout import ROOT
from support.receivers import WECOM_KEY, Receiver, receiver

SCRIPT = ROOT / "roles" / "patrol" / "files" / "tell.py"
UNIT = "qwen3guard-backup@logs.service"


@pytest.fixture
def http() -> t.Iterator[Receiver]:
    with receiver() as running:
        yield running


class Teller:
    """The script with the settings of a patrol."""

    def __init__(self, place: Path, http: Receiver) -> None:
        self.state = place / "state"
        self.settings = place / "patrol.json"
        told = {
            "guardops_instance": "guard-01", "guardops_state_dir": str(self.state), "guardops_alert_urls": [http.wecom],
        }  # fmt: skip
        self.settings.write_text(json.dumps(told))

    def set(self, **more: t.Any) -> None:
        self.settings.write_text(json.dumps({**json.loads(self.settings.read_text()), **more}))

    def start(self, *words: str, **stdin: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.settings), *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **stdin,
        )  # fmt: skip

    def run(self, *words: str, text: str = "") -> tuple[int, str]:
        """Exit code, and all that it said."""
        done = self.start(*words, stdin=subprocess.PIPE)
        output, errors = done.communicate(text, timeout=60)
        assert WECOM_KEY not in output + errors
        return done.returncode, output + errors


@pytest.fixture
def teller(tmp_path: Path, http: Receiver) -> Teller:
    return Teller(tmp_path, http)


def test_each_change_is_one_message(teller: Teller, http: Receiver) -> None:
    assert teller.run(UNIT, "cleared") == (0, "Told: nobody, since it is known.\n")
    for event in ("raised", "still-failing", "cleared", "cleared"):
        assert teller.run(UNIT, event)[0] == 0
    raised, cleared = http.texts
    assert raised.startswith("**Guard guard-01: 1 new**\nNew:\n- guard-01 units qwen3guard-backup@logs.service: ")
    assert cleared.startswith("**Guard guard-01: 1 well again**\nWell again:\n- guard-01 units qwen3guard-backup@logs")


def test_one_that_comes_while_another_tells_waits(teller: Teller, http: Receiver) -> None:
    """Two units that fail at once, or a unit and a patrol."""
    path = teller.state / "alerts" / "guard-01.json.lock"
    path.parent.mkdir(parents=True)
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = teller.start(UNIT, "raised")
        while waiting.poll() is None and not has_open(waiting.pid, path):
            time.sleep(0.05)
        assert http.taken == []
    assert (*waiting.communicate(timeout=60), waiting.returncode) == ("Told: URL 1 (wecombot).\n", "", 0)
    assert len(http.texts) == 1


def has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it closed something meanwhile, or ended
        return any(link.resolve() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_message_that_is_refused_is_sent_the_next_time(teller: Teller, http: Receiver) -> None:
    http.status = 500
    code, words = teller.run(UNIT, "raised")
    assert (code, words.startswith("URL 1 (wecombot): expected")) == (1, True)
    http.status = 200
    assert teller.run(UNIT, "still-failing")[0] == 0
    assert len(http.texts) == 1


def test_result_is_told_each_time_and_says_nothing_of_failures(teller: Teller, http: Receiver) -> None:
    unit, text = "qwen3guard-verify-full@logs.service", "Load it: done.\nlogs 000007-0f: loaded in 12.5 s\n"
    assert teller.run(unit, "raised")[0] == 0
    for _count in range(2):
        assert teller.run(unit, "succeeded", text=text) == (0, "Told: URL 1 (wecombot).\n")
    assert teller.run(unit, "cleared")[0] == 0
    _raised, first, second, cleared = http.texts
    assert first.startswith(f"**Guard guard-01: {unit} succeeded**\n{text}From ")
    assert second == first
    assert cleared.startswith("**Guard guard-01: 1 well again**")


def test_result_goes_to_all_who_can_be_reached(teller: Teller, http: Receiver) -> None:
    teller.set(guardops_alert_urls=[http.wecom.replace(WECOM_KEY, "wrong"), http.wecom])
    code, words = teller.run(UNIT, "succeeded", text="done\n")
    assert (code, words.startswith("URL 1 (wecombot): expected")) == (1, True)
    assert len(http.texts) == 1


def test_other_arguments_are_refused(teller: Teller, http: Receiver) -> None:
    code, words = teller.run(UNIT, "exploded")
    assert (code, words.splitlines()[0]) == (2, "usage: tell.py SETTINGS UNIT raised|still-failing|cleared|succeeded")
    assert http.taken == []


def test_disk_that_takes_nothing_is_told(teller: Teller, http: Receiver) -> None:
    """As it would be where it is full: there is no directory for what was told."""
    teller.state.touch()
    code, words = teller.run(UNIT, "raised")
    assert (code, len(http.texts)) == (1, 1)
    assert "is not remembered, and is told again the next time" in words


def test_url_that_is_none_keeps_the_others_from_nothing(teller: Teller, http: Receiver) -> None:
    teller.set(guardops_alert_urls=["wecombot", http.wecom])
    code, words = teller.run(UNIT, "raised")
    assert (code, len(http.texts)) == (1, 1)
    assert words.startswith("URL 1: expected a URL, found something else.")


def test_check_says_which_urls_are_none_and_sends_nothing(teller: Teller, http: Receiver) -> None:
    assert teller.run("--check") == (0, "")
    teller.set(guardops_alert_urls=[http.wecom, "nosuch://", "wecombot:/x"], guardops_heartbeat_url="https://")
    code, words = teller.run("--check")
    assert code == 1
    assert words.startswith("URL 3: expected a URL, found something else.")
    assert words.endswith("The same is true of: URL 2 (nosuch), heartbeat_url.\n")
    assert http.taken == []
