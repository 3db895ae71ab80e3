# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a script tells of the containers that it starts, in the forms that people write."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.shell_containers import containers


def mounts_of(script: str) -> list[str]:
    """Of the one container, about which everything is told."""
    (run,) = containers(script.encode())
    assert run.unclear == ""
    return run.mounts


@pytest.mark.parametrize(
    "command",
    [
        "docker run -v /data/x:/app/data image",
        "docker run -d --gpus all --name guard -v /data/x:/app/data:rw image --port 8080",
        "podman run --volume=/data/x:/app/data:z image",
        "podman run --rm --volume /data/x:/app/data image",
        "docker run -itv /data/x:/app/data image",
        "docker run -v/data/x:/app/data image",
        "docker container run --mount type=bind,source=/data/x,target=/app/data image",
        "docker create --mount=type=bind,src=/data/x,dst=/app/data,readonly image",
        "sudo docker run -v '/data/x/:/app/data' image",
        'exec /usr/bin/podman run -v "/data/x":/app/data image',
        "cd /root && nohup docker run -v /data/x:/app/data image >/dev/null 2>&1 &",
        "id=$(docker run -d -v /data/x:/app/data image)",
        "if ! docker run -v /data/x:/app/data image; then exit 1; fi",
        "docker run \\\n  --name guard \\\n  -v /data/x:/app/data \\\n  image",
        'ROOT=/data\nDIR="$ROOT/x"  # where\ndocker run -v ${DIR}:/app/data image',
        "OPTIONS='--name guard -v /data/x:/app/data'\ndocker run $OPTIONS image",
        "docker --context there run -v /data/x:/app/data image",
        'docker run -v /data/x:/app/data image bash -c "first\nsecond"',
    ],
)
def test_a_mount_is_found(command: str) -> None:
    assert mounts_of(f"#!/bin/bash\n{command}\n") == ["/data/x"]


@pytest.mark.parametrize(
    "command",
    [
        "docker run image",
        "docker run --name guard image -v /data/x:/app/data",  # the image's own argument
        "docker run -v logs:/root/logs image",  # a volume
        "docker run --mount type=volume,source=logs,target=/root/logs image",
        "docker run --tmpfs /root/logs image",
        "docker run -e LOG_DIR=/data/x image",
        "docker run image # -v /data/x:/app/data",
    ],
)
def test_no_mount_of_the_host_is_found(command: str) -> None:
    assert mounts_of(command) == []


@pytest.mark.parametrize(
    "command",
    [
        "docker run -v $1:/app/data image",
        "docker run -v $(pwd)/logs:/app/data image",
        "docker run -v ./logs:/app/data image",
        "docker run -v ${DIR:-/data/x}:/app/data image",
        'docker run --mount "$MOUNT" image',
        "docker run $OPTIONS image",
        'OPTIONS=(-v /data/x:/y)\ndocker run "${OPTIONS[@]}" image',
        "OPTIONS='-d'\nOPTIONS+=' -v /data/x:/y'\ndocker run $OPTIONS image",
        "DIR=/old\n[ -d /data ] && DIR=/data/x\ndocker run -v $DIR:/y image",
        "DIR=/old\nDIR=/data/x\ndocker run -v $DIR:/y image",
        "docker run --volumes-from other image",
        "docker start guard",
        "docker compose up -d",
        "docker-compose up -d",
        "docker exec guard python3 web.py",
        "${ENGINE:-docker} run image",
    ],
)
def test_what_the_script_does_not_tell(command: str) -> None:
    (run,) = containers(command.encode())
    assert run.unclear
    assert "/data/x" not in run.mounts


@pytest.mark.parametrize(
    "command",
    [
        "python3 web.py",
        "# docker run image",
        "echo docker run image",
        "systemctl restart docker",
        "docker rm guard",
        "",
    ],
)
def test_what_starts_no_container(command: str) -> None:
    assert containers(command.encode()) == []


def test_lines_are_counted_where_the_command_begins() -> None:
    (run,) = containers(b"#!/bin/sh\n# \xe4\xb8\x80\n\ndocker run \\\n  image\n")
    assert run.line == 4


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="docker run-v=:/\\\"'`$(){}#;&|\n ", max_size=80))
def test_no_script_is_too_odd(text: str) -> None:
    containers(f"docker run {text}".encode())
