# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Ansible reaches the hosts of the test bed, which are containers.

The plugin of containers.podman starts podman seven times for each task, since it knows no pipelining. This one does not
start it at all: see `enter`.
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

ENTER = str(pathlib.Path(__file__).with_name("enter"))
NO_HOST = 125  # as podman says it


class Connection(ConnectionBase):
    transport = "testbed"
    has_pipelining = True

    def _connect(self) -> Connection:
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
        host = self.get_option("remote_addr")
        done = subprocess.run([ENTER, host, *command], input=data or b"", capture_output=True, check=False)
        if done.returncode == NO_HOST:
            raise AnsibleConnectionFailure(done.stderr.decode(errors="replace").strip())
        return done.returncode, done.stdout, done.stderr

    def _expect_done(self, done: tuple[int, bytes, bytes]) -> bytes:
        code, output, error = done
        if code != 0:
            raise OSError(f"{self.get_option('remote_addr')}: ended with {code}: {error.decode(errors='replace')}")
        return output
