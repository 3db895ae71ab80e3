# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the service can do after the role ran, and what became of the old installation."""

from __future__ import annotations

import json
import re

import pytest
import testinfra

ROOT = "/data/qwen3guard-gen-web"
LOGS = f"{ROOT}/logs"
MOVED = {"/root/logs/audit": LOGS, "/root/Qwen3Guard-Gen-8B": f"{ROOT}/models", "/root/web": f"{ROOT}/config"}


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


def listing(host: testinfra.host.Host, path: str) -> dict[str, tuple[str, str]]:
    """Files of a listing that prepare.yml or a later step made: mode and checksum by name."""
    files = {}
    for line in host.file(path).content_string.splitlines():
        if line.startswith("-"):
            mode, _owner, rest = line.split(" ", 2)
            name, checksum, _again = re.fullmatch(r"(.*) ([0-9a-f]{64})  (\1)", rest).groups()
            files[name] = (mode, checksum)
    return files


def test_old_installation_is_taken_over(host: testinfra.host.Host) -> None:
    """Each file, with its content and its mode, and nothing else."""
    expected = {}
    for name, described in listing(host, "/run/before").items():
        for old, new in MOVED.items():
            if name.startswith(old + "/"):
                expected[new + name[len(old) :]] = described
    assert len(expected) == 7
    for name, (mode, checksum) in expected.items():
        ran = host.run("stat --format='%%A %%u:%%g' %s && sha256sum <%s", name, name)
        assert ran.stdout.split() == [mode, "10001:10001", checksum, "-"], name
    found = host.check_output(f"find {ROOT} -type f -not -path '*/.git/*'").splitlines()
    assert set(found) == set(expected)
    assert host.run(f"find {' '.join(MOVED)} -mindepth 1").stdout == ""


def test_start_script_uses_the_data_root(host: testinfra.host.Host) -> None:
    script = host.file("/root/1键推理.sh")
    assert f'LOG_DIR="{LOGS}"  # 审核日志\nMODEL_PATH="{ROOT}/models"\n' in script.content_string
    assert "/root/logs" not in script.content_string
    assert (script.mode, script.user) == (0o755, "root")
    (backup,) = host.run("find /root -maxdepth 1 -name '1键推理.sh.*'").stdout.splitlines()
    before = listing(host, "/run/before")["/root/1键推理.sh"][1]
    assert host.check_output("sha256sum <%s", backup).split()[0] == before


def test_all_of_it_is_backed_up(host: testinfra.host.Host) -> None:
    """By the playbook; the role alone backs up nothing."""
    if not host.system_info.release.startswith("13"):
        pytest.skip("taken over by the role alone")
    for layer, directory in {"model": "models", "config": "config", "logs": "logs"}.items():
        manifest = json.loads(host.check_output(f"cat /srv/store/guard-01/{layer}/000001-*/manifest.json"))
        sizes = host.check_output(f"find {ROOT}/{directory} -type f -not -path '*/.git/*' -printf '%s\\n'")
        history = manifest["content_bytes"] - sum(map(int, sizes.split()))
        assert history > 0 if layer == "config" else history == 0, layer
    assert host.service("qwen3guard-backup@logs.timer").is_running
