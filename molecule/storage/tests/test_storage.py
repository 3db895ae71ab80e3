# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the service can do after the role ran, and what became of the old installation."""

from __future__ import annotations

import testinfra

ROOT = "/data/qwen3guard-gen-web"
LOGS = f"{ROOT}/logs"


def as_user(host: testinfra.host.Host, user: str, command: str, *arguments: str) -> int:
    """The exit code of a shell command that this user runs."""
    words = " ".join(f"'{argument}'" for argument in arguments)
    return host.run(f"runuser --user={user} -- sh -c '{command}' sh {words}").rc


def test_service_writes_logs_whoever_made_them(host: testinfra.host.Host) -> None:
    # One that was taken over, with mode 0600 of root's. Nothing is added: going back is compared byte by byte.
    assert as_user(host, "aiuser", ': >>"$1"', f"{LOGS}/audit.log") == 0
    # The trap: root makes the file, with a mask that shuts everybody out.
    assert host.run(f"umask 077; mkdir {LOGS}/new && touch {LOGS}/new/by-root.log").rc == 0
    assert as_user(host, "aiuser", 'echo "{}" >>"$1"', f"{LOGS}/new/by-root.log") == 0
    assert host.run(f"rm -r {LOGS}/new").rc == 0


def test_only_readers_read(host: testinfra.host.Host) -> None:
    assert host.run(f"echo record >{LOGS}/readers.log").rc == 0
    assert as_user(host, "daemon", 'cat "$1"', f"{LOGS}/readers.log") == 0
    assert as_user(host, "daemon", 'echo >>"$1"', f"{LOGS}/readers.log") != 0
    assert as_user(host, "nobody", 'cat "$1"', f"{LOGS}/readers.log") != 0
    assert host.run(f"rm {LOGS}/readers.log").rc == 0


def test_service_reads_models_and_cannot_change_them(host: testinfra.host.Host) -> None:
    assert host.run(f"umask 077; echo weights >{ROOT}/models/by-root.bin").rc == 0
    assert as_user(host, "aiuser", 'cat "$1"', f"{ROOT}/models/by-root.bin") == 0
    assert as_user(host, "aiuser", 'echo >>"$1"', f"{ROOT}/models/by-root.bin") != 0
    assert as_user(host, "aiuser", 'touch "$1"', f"{ROOT}/models/new") != 0
    assert host.run(f"rm {ROOT}/models/by-root.bin").rc == 0


def test_data_root_is_on_the_device(host: testinfra.host.Host) -> None:
    mount = host.mount_point(ROOT)
    assert mount.exists
    assert mount.filesystem == ("xfs" if host.system_info.release.startswith("13") else "ext4")
    assert "noatime" in mount.options
    assert host.service("data-qwen3guard\\x2dgen\\x2dweb.mount").is_enabled


def test_old_installation_is_taken_over(host: testinfra.host.Host) -> None:
    moved = {
        f"{LOGS}/audit.log": "qwg-20240520-8b-7f3a9c21",
        f"{LOGS}/2024-05/audit.log.1": "old",
        f"{ROOT}/models/config.json": "{}",
    }
    for path, content in moved.items():
        assert content in host.file(path).content_string
        assert host.file(path).user == "aiuser"
    assert host.run("find /root/logs/audit /root/Qwen3Guard-Gen-8B -mindepth 1").stdout == ""


def test_start_script_uses_the_data_root(host: testinfra.host.Host) -> None:
    script = host.file("/root/1键推理.sh").content_string
    assert f'LOG_DIR="{LOGS}"  # 审核日志\nMODEL_PATH="{ROOT}/models"\n' in script
    assert "/root/logs" not in script
    (backup,) = host.run("find /root -maxdepth 1 -name '1键推理.sh.*'").stdout.splitlines()
    assert 'LOG_DIR="/root/logs/audit"  # 审核日志' in host.file(backup).content_string
