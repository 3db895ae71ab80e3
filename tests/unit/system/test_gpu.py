# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of a host's GPUs, with stand-ins of the kernel's files and of NVIDIA's programs."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.system import gpu

RELEASE = os.uname().release


class StandIn:
    """A host below a directory."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.programs = root / "bin"
        self.programs.mkdir()
        self.places = gpu.Places(
            sysfs=str(root / "sys"),
            modules=str(root / "modules"),
            reboot_required=str(root / "reboot-required"),
            specifications=(str(root / "cdi"),),
        )

    def device(self, address: str, vendor: str = "0x10de", kind: str = "0x030200") -> None:
        device = self.root / "sys" / "bus" / "pci" / "devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def module(self, name: str, version: str = "") -> None:
        """One that is loaded."""
        path = self.root / "sys" / "module" / name
        path.mkdir(parents=True)
        if version:
            (path / "version").write_text(f"{version}\n")

    def module_of(self, kernel: str, name: str = "nvidia-current.ko.xz") -> None:
        """One that is installed for a kernel."""
        path = self.root / "modules" / kernel / "updates" / "dkms" / name
        path.parent.mkdir(parents=True)
        path.touch()

    def look(self, wanted: gpu.Wanted | None = None) -> gpu.Host:
        return gpu.look(self.places, wanted or gpu.Wanted())


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path)
    # No driver of the machine that runs the tests may be seen.
    monkeypatch.setenv("PATH", f"{made.programs}:{_only_basics(tmp_path)}")
    return made


def _only_basics(root: pathlib.Path) -> pathlib.Path:
    basics = root / "basics"
    basics.mkdir()
    for name in ("sh", "echo", "setpriv", "cat"):
        for place in ("/usr/bin", "/bin"):
            if os.path.exists(f"{place}/{name}"):
                (basics / name).symlink_to(f"{place}/{name}")
                break
    return basics


def working(host: StandIn, version: str = "550.163.01", gpus: int = 1) -> None:
    host.program("nvidia-smi", "\n".join([f"echo '{version}, Enabled'"] * gpus))
    host.program("modinfo", f'[ "$3" = nvidia-current ] && echo {version}')
    host.module("nvidia", version)


def test_only_display_devices_of_nvidia_are_gpus(host: StandIn) -> None:
    host.device("0000:01:00.0")
    host.device("0000:02:00.0", kind="0x030000")
    host.device("0000:01:00.1", kind="0x040300")  # the sound of the same card
    host.device("0000:00:02.0", vendor="0x8086", kind="0x030000")
    found = host.look()
    assert found.gpus == ["0000:01:00.0", "0000:02:00.0"]
    assert found.other_displays == ["0000:00:02.0 (vendor 0x8086)"]


def test_machine_without_pci_has_no_gpu(host: StandIn) -> None:
    found = host.look()
    assert found.gpus == []
    assert not found.ready
    assert gpu.reasons_to_reboot(found) == []


def test_driver_that_works_needs_nothing(host: StandIn) -> None:
    host.device("0000:01:00.0")
    working(host)
    found = host.look()
    assert found.driver == gpu.Driver(version="550.163.01", gpus=1, persistence=True, problem="")
    assert found.kernel.loaded == found.kernel.installed == "550.163.01"
    assert gpu.reasons_to_reboot(found) == []
    # Not even where the distribution would like a reboot.
    (host.root / "reboot-required").touch()
    assert gpu.reasons_to_reboot(host.look()) == []


def test_driver_that_lists_fewer_gpus_does_not_work(host: StandIn) -> None:
    host.device("0000:01:00.0")
    host.device("0000:02:00.0")
    working(host)
    assert host.look().driver.problem == "nvidia-smi: lists 1 of 2 GPUs on the PCI bus"


@pytest.mark.parametrize(
    ("version", "minimum", "branch", "problem"),
    [
        ("550.163.01", "535", "", ""),
        ("550.163.01", "550.163", "550", ""),
        ("550.9", "550.54", "", "driver 550.9: older than 550.54"),
        ("550.163.01", "", "580", "driver 550.163.01: not of branch 580"),
        ("5800.1", "", "580", "driver 5800.1: not of branch 580"),
    ],
)
def test_versions(host: StandIn, version: str, minimum: str, branch: str, problem: str) -> None:
    host.device("0000:01:00.0")
    working(host, version)
    assert host.look(gpu.Wanted(minimum, branch)).driver.problem == problem


def test_driver_that_is_installed_and_does_not_load(host: StandIn) -> None:
    host.device("0000:01:00.0")
    host.program("nvidia-smi", "echo 'NVIDIA-SMI has failed.'; exit 9")
    found = host.look()
    assert found.driver.problem == "nvidia-smi: ended with 9: NVIDIA-SMI has failed."
    (cause,) = gpu.other_causes(found)
    assert f"kernel {RELEASE} has no headers" in cause

    (host.root / "modules" / RELEASE / "build").mkdir(parents=True)
    (cause,) = gpu.other_causes(host.look())
    assert "dkms status" in cause


def test_secure_boot_is_named_where_a_module_is_refused(host: StandIn) -> None:
    host.device("0000:01:00.0")
    host.program("nvidia-smi", "exit 9")
    host.program("modinfo", "echo 550.163.01")
    variables = host.root / "sys" / "firmware" / "efi" / "efivars"
    variables.mkdir(parents=True)
    variable = variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    variable.write_bytes(b"\x06\0\0\0\x01")
    (cause,) = gpu.other_causes(host.look())
    assert "Secure Boot is on" in cause
    variable.write_bytes(b"\x06\0\0\0\0")
    assert gpu.other_causes(host.look()) == []


def test_reboot_for_each_reason(host: StandIn) -> None:
    host.device("0000:01:00.0")
    host.program("nvidia-smi", "echo 'Driver/library version mismatch' >&2; exit 18")
    host.module("nvidia", "535.1")
    host.program("modinfo", "echo 550.163.01")
    assert gpu.reasons_to_reboot(host.look()) == ["module 535.1 is loaded, 550.163.01 is installed"]

    host.module("nouveau")
    host.program("modinfo", "exit 1")
    host.module_of("6.99.0-newer")
    (host.root / "reboot-required").touch()
    assert gpu.reasons_to_reboot(host.look()) == [
        "the driver nouveau is loaded and holds the GPU",
        f"the module is there for kernel 6.99.0-newer, and {RELEASE} runs",
        "/run/reboot-required is there",
    ]
