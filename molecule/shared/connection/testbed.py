# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Ansible reaches the hosts of the test bed, which are containers.

The plugin of containers.podman starts podman seven times for each task, since it knows no pipelining. This one does not
start it for commands at all: to step into a container's namespaces takes 5 ms, `podman exec` 150 ms.
"""

from __future__ import annotations

import pathlib
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: testbed
short_description: Run in a container of this machine
description: For the Molecule scenarios only.
author: guardops contributors (@guardops)
extends_documentation_fragment:
  - connection_pipelining
options:
  remote_addr:
    description: The container's name.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
"""


# As podman does: into the container's own control group first, or, where the kernel wants none beside the groups below
# it, into its first process's.
JOIN = """
for group in . init.scope; do
    { echo $$ >"$1/$group/cgroup.procs"; } 2>/dev/null && break
done
shift
exec "$@"
"""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TERM": "xterm",
    "container": "podman",
}


class Connection(ConnectionBase):
    transport = "testbed"
    has_pipelining = True

    def _connect(self) -> Connection:
        if not self._connected:
            # Asked anew by each task: a host that was started again has another one.
            words = ["podman", "inspect", "--format", "{{.State.Pid}}", self.get_option("remote_addr")]
            told = subprocess.run(words, capture_output=True, text=True, check=False)
            if told.returncode != 0 or told.stdout.strip() in ("", "0"):
                raise AnsibleConnectionFailure(f"{words[-1]} does not run: {told.stderr.strip()}")
            process = told.stdout.strip()
            self._enter = [
                *("/bin/sh", "-c", JOIN, "sh", f"/proc/{process}/root/sys/fs/cgroup"),
                *("nsenter", "--target", process, "--all", "--"),
            ]
            self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(["/bin/sh", "-c", cmd], in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        self._expect_done(self._run(["sh", "-c", 'cat >"$1"', "sh", out_path], pathlib.Path(in_path).read_bytes()))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        pathlib.Path(out_path).write_bytes(self._expect_done(self._run(["cat", in_path], None)))

    def close(self) -> None:
        self._connected = False

    def _run(self, command: list[str], data: bytes | None) -> tuple[int, bytes, bytes]:
        self._connect()
        done = subprocess.run(
            [*self._enter, *command], input=data or b"", env=ENVIRONMENT, capture_output=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def _expect_done(self, done: tuple[int, bytes, bytes]) -> bytes:
        code, output, error = done
        if code != 0:
            raise OSError(f"{self.get_option('remote_addr')}: ended with {code}: {error.decode(errors='replace')}")
        return output
