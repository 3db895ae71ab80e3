# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook patrol as AWX runs it on a host: it starts the host's own unit, and tells what that one said."""

from __future__ import annotations

import pathlib

import pytest

from support.playbooks import PlaybookRun, Playbooks

UNIT = "qwen3guard-patrol.service"
# In the place of systemd's: they know one unit, which came to what the file `result` says.
SYSTEMCTL = f"""#!/bin/sh
place=$(dirname "$0")
case "$*" in
    "show --property=LoadState --value {UNIT}") cat "$place/loaded" ;;
    "start {UNIT}") echo start >>"$place/started"; exit "$(cat "$place/result")" ;;
    "show --property=InvocationID --value {UNIT}") echo 0f0f ;;
    *) exit 9 ;;
esac
"""
JOURNALCTL = """#!/bin/sh
[ "$*" = "--quiet --output=cat _SYSTEMD_INVOCATION_ID=0f0f" ] || exit 9
echo 'failures: guard-01 snapshot logs: expected a snapshot, found none'
"""
TRIAL = '#!/bin/sh\n[ "$1 $2" = "patrol --check" ] && echo "1 instances in 0.1 s"\n'


class Host:
    """This machine with other programs."""

    def __init__(self, place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = place / "bin"
        self.bin.mkdir()
        for name, text in {"systemctl": SYSTEMCTL, "journalctl": JOURNALCTL, "qwen3guard": TRIAL}.items():
            (self.bin / name).write_text(text, encoding="utf-8")
            (self.bin / name).chmod(0o700)
        monkeypatch.setenv("PATH", str(self.bin), prepend=":")
        # A repository and people that only a patrol from here would ask: they are not there.
        self.playbooks = Playbooks(
            place / "controller",
            {
                "guardops_patrol_unit": True,
                "guardops_repository": "nowhere:x",
                "guardops_alert_urls": ["wecombot://nobody?endpoint=http://127.0.0.1:9"],
                "runtime_command": str(self.bin / "qwen3guard"),
            },
        )

    def patrol(self, *flags: str, result: int = 0, loaded: str = "loaded") -> PlaybookRun:
        (self.bin / "result").write_text(str(result))
        (self.bin / "loaded").write_text(f"{loaded}\n")
        (self.bin / "started").write_text("")
        return self.playbooks.run("patrol", *flags)

    @property
    def started(self) -> int:
        return len((self.bin / "started").read_text().splitlines())


def test_the_hosts_own_patrol_looks_and_its_words_are_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch)
    well = host.patrol()
    assert (well.rc, host.started) == (0, 1), well.output
    assert "expected a snapshot, found none" in well.output
    ill = host.patrol(result=1)
    assert (ill.rc != 0, host.started) == (True, 1), ill.output
    assert "expected a snapshot, found none" in ill.output
    assert f"{UNIT}: expected a patrol without failures" in ill.output
    tried = host.patrol("--check")
    assert (tried.rc, host.started) == (0, 0), tried.output
    assert "1 instances in 0.1 s" in tried.output
    missing = host.patrol(loaded="not-found")
    assert (missing.rc != 0, host.started) == (True, 0)
    assert f"{UNIT}: expected what the role patrol makes, found none (not-found)." in missing.output
