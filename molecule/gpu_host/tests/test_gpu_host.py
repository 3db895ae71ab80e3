# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What containers can do after the role ran, and what a boot or a new driver would do."""

from __future__ import annotations

import testinfra

IMAGE = "docker-archive:/srv/stand-in/busybox.tar"
SPECIFICATION = "/etc/cdi/nvidia.yaml"


def refresh_of(host: testinfra.host.Host) -> str:
    """The unit that makes the specification: the toolkit's own from 1.18 on."""
    return "guardops-cdi-refresh" if host.system_info.release.startswith("12") else "nvidia-cdi-refresh"


def in_container(host: testinfra.host.Host, options: str, command: str) -> str:
    return host.check_output(f"podman run --rm --network=none {options} {IMAGE} {command}")


def test_container_sees_the_gpu_it_was_given_and_no_other(host: testinfra.host.Host) -> None:
    assert in_container(host, "--device=nvidia.com/gpu=all", "nvidia-smi --list-gpus").startswith("GPU 0: ")
    assert "nvidia" not in in_container(host, "", "ls /dev")


def test_specification_is_made_anew_at_a_boot(host: testinfra.host.Host) -> None:
    unit = refresh_of(host)
    assert host.service(unit).is_enabled
    before = host.file(SPECIFICATION).content_string
    assert "libcuda.so.580.1.1" in before
    assert host.run(f"rm {SPECIFICATION} && systemctl restart {unit}").rc == 0
    assert host.file(SPECIFICATION).content_string == before
    # A second one there would win, and be gone after the boot.
    assert not host.file("/run/cdi/nvidia.yaml").exists


def test_refresh_comes_before_what_needs_it(host: testinfra.host.Host) -> None:
    if refresh_of(host) == "guardops-cdi-refresh":
        assert "qwen3guard.service" in host.check_output("systemctl show --property=Before guardops-cdi-refresh")
    else:
        assert host.service("nvidia-cdi-refresh.path").is_running


def test_archive_is_trusted_by_its_own_key_only(host: testinfra.host.Host) -> None:
    for name in ("guardops-nvidia-driver", "guardops-nvidia-container-toolkit"):
        source = host.file(f"/etc/apt/sources.list.d/{name}.sources").content_string
        (key,) = [line.split()[1] for line in source.splitlines() if line.startswith("Signed-By:")]
        assert host.file(key).content_string == host.file("/srv/stand-in/archive/key.asc").content_string
    assert host.check_output("find /etc/apt/trusted.gpg.d -name '*guardops*'") == ""


def test_toolkit_has_the_version_that_was_asked_for(host: testinfra.host.Host) -> None:
    wanted = "1.17.9-1" if host.system_info.release.startswith("12") else "1.18.0-1"
    assert host.package("nvidia-container-toolkit-base").version == wanted


def test_branch_is_pinned(host: testinfra.host.Host) -> None:
    assert host.package("nvidia-driver-pinning-580").is_installed


def test_gpu_stays_awake(host: testinfra.host.Host) -> None:
    assert host.service("nvidia-persistenced").is_running
    assert host.service("nvidia-persistenced").is_enabled


def test_nouveau_stays_away(host: testinfra.host.Host) -> None:
    assert "\nblacklist nouveau\n" in host.file("/etc/modprobe.d/guardops-nouveau.conf").content_string
