# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host has of NVIDIA GPUs, and whether they work: looks, never changes anything.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import glob
import os
import pathlib
import re
import shutil
import typing as t

from . import cdi
from .process import run

VENDOR = "0x10de"
DISPLAY_CLASS = "0x03"  # VGA and 3D controllers; the rest of a card, such as its audio, is another class
MODULES = ("nvidia", "nvidia-current")  # the second is Debian's name of the first
REBOOT_REQUIRED = "/run/reboot-required"
TIMEOUT = 60.0  # nvidia-smi can hang on a GPU that fell off the bus


class Places(t.NamedTuple):
    """Where the kernel and the host tell about themselves; other ones in tests."""

    sysfs: str = "/sys"
    modules: str = "/lib/modules"
    reboot_required: str = REBOOT_REQUIRED
    specifications: tuple[str, ...] = cdi.DIRECTORIES


class Wanted(t.NamedTuple):
    """Which drivers are acceptable; an empty text for any."""

    minimum: str = ""
    branch: str = ""


class Driver(t.NamedTuple):
    """What the driver's own program says. ``problem`` is empty where all is well."""

    version: str = ""
    gpus: int = 0
    persistence: bool = False
    problem: str = "nvidia-smi: not installed"


class Kernel(t.NamedTuple):
    """The running kernel and the driver's module in it; an empty version for no such module."""

    release: str
    loaded: str
    installed: str
    elsewhere: list[str]  # other kernels that have the module
    headers: bool
    nouveau: bool
    secure_boot: bool | None  # None: this host does not boot by UEFI, or does not say


class Host(t.NamedTuple):
    """Everything together."""

    gpus: list[str]
    other_displays: list[str]
    driver: Driver
    kernel: Kernel
    specification: cdi.Specification
    reboot_required: bool

    @property
    def ready(self) -> bool:
        return bool(self.gpus) and not self.driver.problem and not self.specification.problem


def look(places: Places, wanted: Wanted) -> Host:
    """Look at this host."""
    gpus, other_displays = list_displays(places.sysfs)
    driver = judge(ask_driver(), len(gpus), wanted)
    return Host(
        gpus=gpus,
        other_displays=other_displays,
        driver=driver,
        kernel=ask_kernel(places),
        specification=cdi.look(places.specifications, driver.version),
        reboot_required=os.path.exists(places.reboot_required),
    )


def list_displays(sysfs: str) -> tuple[list[str], list[str]]:
    """The PCI addresses of all NVIDIA GPUs, whatever driver they have, and those of other makers' with the vendor."""
    devices = pathlib.Path(sysfs, "bus", "pci", "devices")
    if not devices.is_dir():  # a machine without PCI
        return [], []
    displays = [device for device in sorted(devices.iterdir()) if _read(device / "class").startswith(DISPLAY_CLASS)]
    vendors = {device.name: _read(device / "vendor") for device in displays}
    return (
        [name for name, vendor in vendors.items() if vendor == VENDOR],
        [f"{name} (vendor {vendor})" for name, vendor in vendors.items() if vendor != VENDOR],
    )


def ask_driver() -> Driver:
    """Ask nvidia-smi. Only its answer counts: packages can be installed and the driver not load."""
    if shutil.which("nvidia-smi") is None:
        return Driver()
    asked = run(["nvidia-smi", "--query-gpu=driver_version,persistence_mode", "--format=csv,noheader"], timeout=TIMEOUT)
    if asked.timed_out:
        return Driver(problem=f"nvidia-smi: no answer within {TIMEOUT:.0f} seconds")
    output = asked.stdout.decode("utf-8", "replace").strip()
    if asked.rc != 0:
        said = " ".join((output or asked.stderr).split())
        return Driver(problem=f"nvidia-smi: ended with {asked.rc}: {said}")
    rows = [[field.strip() for field in line.split(",")] for line in output.splitlines() if "," in line]
    if not rows:
        return Driver(problem="nvidia-smi: lists no GPU")
    return Driver(
        version=rows[0][0],
        gpus=len(rows),
        persistence=all(row[1] == "Enabled" for row in rows),
        problem="",
    )


def judge(driver: Driver, gpus: int, wanted: Wanted) -> Driver:
    """The driver, with a problem where it works and is not what was wanted."""
    if driver.problem:
        return driver
    problem = ""
    if driver.gpus != gpus:
        problem = f"nvidia-smi: lists {driver.gpus} of {gpus} GPUs on the PCI bus"
    elif wanted.branch and _numbers(driver.version)[: len(_numbers(wanted.branch))] != _numbers(wanted.branch):
        problem = f"driver {driver.version}: not of branch {wanted.branch}"
    elif _numbers(driver.version) < _numbers(wanted.minimum):
        problem = f"driver {driver.version}: older than {wanted.minimum}"
    return driver._replace(problem=problem)


def ask_kernel(places: Places) -> Kernel:
    """What the running kernel has of the driver."""
    release = os.uname().release
    modules = pathlib.Path(places.modules)
    return Kernel(
        release=release,
        loaded=_read(pathlib.Path(places.sysfs, "module", "nvidia", "version")),
        installed=_installed_module(),
        elsewhere=[name for name in _kernels_with_module(modules) if name != release],
        headers=(modules / release / "build").exists(),
        nouveau=pathlib.Path(places.sysfs, "module", "nouveau").exists(),
        secure_boot=_secure_boot(places.sysfs),
    )


def reasons_to_reboot(host: Host) -> list[str]:
    """Why a reboot would help; an empty list where it would not, or nothing needs help."""
    if not host.gpus or not host.driver.problem:
        return []
    kernel = host.kernel
    reasons = []
    if kernel.nouveau:
        reasons.append("the driver nouveau is loaded and holds the GPU")
    if kernel.loaded and kernel.installed and kernel.loaded != kernel.installed:
        reasons.append(f"module {kernel.loaded} is loaded, {kernel.installed} is installed")
    if not kernel.installed and kernel.elsewhere:
        reasons.append(f"the module is there for kernel {', '.join(kernel.elsewhere)}, and {kernel.release} runs")
    if host.reboot_required:
        reasons.append(f"{REBOOT_REQUIRED} is there")
    return reasons


def other_causes(host: Host) -> list[str]:
    """What else keeps an installed driver from working, and what to do about it."""
    kernel = host.kernel
    causes = []
    if not kernel.installed and not kernel.headers:
        causes.append(
            f"kernel {kernel.release} has no headers (/lib/modules/{kernel.release}/build), so no module could be "
            "built for it: install them, or boot a kernel that has some"
        )
    elif not kernel.installed:
        causes.append(
            f"kernel {kernel.release} has headers and no module: "
            "see `dkms status` and /var/lib/dkms/nvidia*/*/build/make.log"
        )
    if kernel.secure_boot and not kernel.loaded:
        causes.append(
            "Secure Boot is on and refuses modules that nobody signed: enroll the key of DKMS "
            "(mokutil --import /var/lib/dkms/mok.pub), use signed modules, or turn it off"
        )
    return causes


def _installed_module() -> str:
    """The version of the module that would be loaded now."""
    if shutil.which("modinfo") is None:
        return ""
    for name in MODULES:
        asked = run(["modinfo", "--field", "version", name], timeout=TIMEOUT)
        if asked.rc == 0 and asked.stdout.strip():
            return asked.stdout.decode("utf-8", "replace").split()[0]
    return ""


def _kernels_with_module(modules: pathlib.Path) -> list[str]:
    found = set()
    for name in MODULES:
        for path in glob.iglob(f"{glob.escape(str(modules))}/*/**/{name}.ko*", recursive=True):
            found.add(pathlib.Path(path).relative_to(modules).parts[0])
    return sorted(found)


def _secure_boot(sysfs: str) -> bool | None:
    for path in pathlib.Path(sysfs, "firmware", "efi", "efivars").glob("SecureBoot-*"):
        return path.read_bytes()[-1:] == b"\x01"  # four bytes of attributes go before the value
    return None


def _read(path: pathlib.Path) -> str:
    """The one line of a file in sysfs, or an empty text where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
