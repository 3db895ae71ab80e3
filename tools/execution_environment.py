# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the execution environment as an image, and run playbooks in it with ansible-runner, as AWX does.

    make execution-environment                                          on a Debian 13 that is made here
    make execution-environment BASE=quay.io/centos/centos:stream10      on another image, with dnf
    tools/testbed exec .venv/bin/python tools/execution_environment.py --help

The definition is meta/execution-environment.yml with the collection as it lies here; for a base with apt it gets what
docs/schedules.md says of one. The playbooks back up a sample instance to a directory, and by rclone, verify it, and
show it. Needs root; tools/testbed brings podman and mmdebstrap. The image is removed afterwards, the Debian base stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # no installed package

from sample_instance.instance import make_instance

from support.checkout import find_tool
from support.galaxy import build_collection

IMAGE = "localhost/guardops-testbed-ee:latest"  # tools/testbed clean --images removes what is named so
SUITE, PACKAGES = "trixie", "python3,python3-pip,git,ca-certificates"
WITH_APT = {
    "options": {"package_manager_path": "/usr/bin/apt-get", "skip_pip_install": True},
    "additional_build_steps": {"prepend_base": ["RUN apt-get update"]},
}
PROGRAMS = {
    "ansible": "--version", "ansible-runner": "--version", "rclone": "--version", "gpg": "--version",
    "zstd": "--version", "tar": "--version", "git": "--version", "getfacl": "--version", "ssh": "-V",
}  # fmt: skip
MODULE_LIBRARIES = "import boto3, gnupg, zstandard"
COLLECTION = "guardops.qwen3guard"


def call(*argv: str, env: t.Mapping[str, str] | None = None) -> str:
    """Run a program; what it printed on both ways, or the end with it."""
    done = subprocess.run(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{argv[0]} {' '.join(argv[1:])[:200]}: exit code {done.returncode}")
    return done.stdout


def works(*argv: str) -> bool:
    return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def make_debian(work: pathlib.Path) -> str:
    """A base image as small as ansible-builder takes it; made the first time."""
    image = f"localhost/guardops-testbed-ee-base:{hashlib.sha256(f'{SUITE} {PACKAGES}'.encode()).hexdigest()[:12]}"
    if not works("podman", "image", "exists", image):
        print(f"Making the base image, Debian {SUITE} ...", flush=True)
        archive = str(work / "base.tar")
        call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, archive)
        call("podman", "import", "--quiet", archive, image)
    return image


def write_definition(work: pathlib.Path, base: str, *, apt: bool) -> pathlib.Path:
    definition: dict[str, t.Any] = yaml.safe_load((ROOT / "meta" / "execution-environment.yml").read_text())
    definition["images"]["base_image"]["name"] = base
    built = build_collection(work / "collection")
    dependencies = definition["dependencies"]
    dependencies["galaxy"]["collections"] = [{"name": f"/build/{built.name}", "type": "file"}]
    definition["additional_build_files"] = [{"src": str(built), "dest": "."}]
    for kind in ("python", "system"):
        dependencies[kind] = str(ROOT / "meta" / dependencies[kind])
    if apt:
        definition.update(WITH_APT)
    path = work / "execution-environment.yml"
    path.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
    return path


def build(work: pathlib.Path, base: str, *, apt: bool, guarded: bool) -> None:
    extra = ["--layers=false"]  # leaves no image but the one
    if not guarded:
        extra.append("--isolation=chroot")
    # On a machine whose way out has a certificate of its own, pip has to know it, while it builds only.
    if authority := os.environ.get("PIP_CERT"):
        extra.append(f"--volume={authority}:/etc/ssl/certs/ca-certificates.crt:ro")
    definition = write_definition(work, base, apt=apt)
    call("podman", "rmi", "--ignore", IMAGE)  # one that was kept would lose its name, and stay
    log = call(
        find_tool("ansible-builder"), "build", "--file", str(definition), "--context", str(work / "context"),
        "--tag", IMAGE, "--container-runtime", "podman", f"--extra-build-cli-args={' '.join(extra)}", "-v", "3",
    )  # fmt: skip
    (work / "build.log").write_text(log, encoding="utf-8")


def try_programs(image: str, options: t.Sequence[str]) -> None:
    """As the user that the image names, which is not root."""
    inside = ("podman", "run", "--rm", *options, image)
    for program, flag in PROGRAMS.items():
        print(f"    {program}: {call(*inside, program, flag).strip().splitlines()[0]}")
    call(*inside, "python3", "-c", MODULE_LIBRARIES)
    listed = json.loads(call(*inside, "ansible-galaxy", "collection", "list", "--format", "json", COLLECTION))
    (found,) = listed.values()
    print(f"    {COLLECTION}: {found[COLLECTION]['version']}")


class Jobs:
    """A private data directory, which is /runner in the container."""

    def __init__(self, place: pathlib.Path, image: str, options: t.Sequence[str]):
        self.place, self.image, self.options = place, image, options
        make_instance(place / "data", days=1, records_per_day=50)
        for repository in ("repository", "by-rclone"):
            (place / repository).mkdir()  # none is made by itself
        self._write("env/trial.key", secrets.token_urlsafe(32)).chmod(0o600)
        self._write("env/rclone.conf", "[trial]\ntype = local\n")
        self._write("env/envvars", json.dumps({"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}))
        host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        variables = {
            "guardops_data_root": "/runner/data",
            "guardops_state_dir": "/runner/state",
            "guardops_repository": "/runner/repository",
            "guardops_rclone_config": "/runner/env/rclone.conf",
            "guardops_key": {"provider": "file", "key_file": "/runner/env/trial.key"},
        }
        self._write("inventory/hosts.json", json.dumps({"guard": {"hosts": {"guard-01": host}, "vars": variables}}))

    def _write(self, name: str, content: str) -> pathlib.Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def run(self, playbook: str, **answers: t.Any) -> None:
        self._write(f"project/playbooks/{playbook}.yml", f"- import_playbook: {COLLECTION}.{playbook}\n")
        self._write("env/extravars", json.dumps(answers))
        ident = f"{playbook}-{secrets.token_hex(4)}"
        started = time.monotonic()
        subprocess.run(
            [
                find_tool("ansible-runner"),
                *("run", str(self.place), "--playbook", f"playbooks/{playbook}.yml", "--ident", ident, "--quiet"),
                *("--process-isolation", "--process-isolation-executable", "podman", "--container-image", self.image),
                # As AWX on its execution nodes: there that root is an ordinary user outside.
                *(f"--container-option={option}" for option in ("--user=root", "--pull=never", *self.options)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        artifacts = self.place / "artifacts" / ident
        status = (artifacts / "status").read_text() if (artifacts / "status").exists() else "never started"
        if status != "successful":
            sys.exit(f"{(artifacts / 'stdout').read_text()}\n{playbook} in the execution environment: {status}")
        print(f"    {playbook} {json.dumps(answers)}: {status} in {time.monotonic() - started:.0f} s", flush=True)


def try_jobs(jobs: Jobs) -> None:
    jobs.run("backup")
    jobs.run("verify", guardops_levels=["restored", "loaded"])
    jobs.run("info")
    jobs.run("report", guardops_report_page="/runner/report.html")
    by_rclone = {"guardops_repository": "trial:/runner/by-rclone", "guardops_layers": ["config"]}
    jobs.run("backup", **by_rclone)
    jobs.run("verify", **by_rclone)
    # What the jobs said is one thing, what lies there another.
    for repository, layers in (("repository", ["config", "logs", "model"]), ("by-rclone", ["config"])):
        found = sorted(path.parent.parent.name for path in jobs.place.glob(f"{repository}/guard-01/*/*/manifest.json"))
        if found != layers:
            sys.exit(f"{repository}: expected a snapshot of each of {', '.join(layers)}, found {found}.")
    if not (jobs.place / "report.html").read_text(encoding="utf-8").startswith("<!"):
        sys.exit("report.html: expected a page, found something else.")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--base", default="", help="the base image; without it, Debian 13, made here")
    parser.add_argument("--apt", action="store_true", help="the base image that --base names has apt, not dnf")
    parser.add_argument("--keep", action="store_true", help=f"keep the image, {IMAGE}")
    parser.add_argument("--image", default="", help="try this image, and build none")
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="execution-environment-"))
    try:
        base = arguments.image or arguments.base or make_debian(work)
        # Where a container may not raise its limits, crun cannot guard devices by cgroups, and does not start.
        guarded = works("podman", "run", "--rm", base, "true")
        options = () if guarded else ("--cgroups=disabled",)
        if not arguments.image:
            print(f"Building on {base} ...", flush=True)
            started = time.monotonic()
            build(work, base, apt=arguments.apt or not arguments.base, guarded=guarded)
            print(f"Built in {time.monotonic() - started:.0f} s.", flush=True)
        image = arguments.image or IMAGE
        print("In it, as its user:", flush=True)
        try_programs(image, options)
        print("Jobs in it, by ansible-runner:", flush=True)
        try_jobs(Jobs(work / "private", image, options))
    finally:
        shutil.rmtree(work)
        if not (arguments.keep or arguments.image):
            subprocess.run(["podman", "rmi", "--force", "--ignore", IMAGE], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
