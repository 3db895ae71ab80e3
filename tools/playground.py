# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small guard to play with, on this machine: docs/tutorial.md goes through it.

Started by `make playground`. A sample instance, the audit gateway before a stand-in for the model engine, and a real S3
server on loopback run until Ctrl-C. No root is needed, and nothing is written but its directory, which stays.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import sys
import time
import typing as t

sys.dont_write_bytecode = True  # nothing is left beside the sources
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from sample_instance import model_tree, permissions
from sample_instance.instance import SECOND_USER, make_instance

from support.checkout import link_collection
from support.fake_upstream import SAFE, FakeUpstream, completion
from support.gateway import GatewayProcess
from support.seaweed import Seaweed

BUCKET = "guard-backups"
MARK = ".guardops-playground"  # only a directory with this file in it is ever removed

ANSIBLE_CFG = """\
[defaults]
inventory = inventory.yml
collections_path = {collections}
home = {directory}/ansible
local_tmp = {directory}/ansible/tmp
remote_tmp = {directory}/ansible/tmp
pipelining = true
display_skipped_hosts = false
nocows = true
stdout_callback = ansible.builtin.default
"""
INVENTORY = """\
guard:
  hosts:
    guard-01:
      ansible_connection: local
      ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
  vars:
    guardops_data_root: {directory}/data
    guardops_repository: store:{bucket}
    guardops_rclone_config: {directory}/rclone.conf
    guardops_state_dir: {directory}/state
    guardops_archive_ledger: {directory}/gateway/archived.json
    guardops_key:
      provider: file # for trials: whoever gets this file can read every snapshot
      key_file: {directory}/trial.key
"""
ENVIRONMENT = """\
export PATH="{checkout}/.venv/bin:$PATH"
export ANSIBLE_CONFIG="{directory}/ansible.cfg"
CHECKOUT="{checkout}"
GATEWAY={gateway}
restart_gateway() {{
    rm "{directory}/env" && kill -USR1 {pid}
    until [ -e "{directory}/env" ]; do sleep 0.1; done
    . "{directory}/env"
}}
"""


def prepare(directory: pathlib.Path) -> None:
    """An empty directory, and the programs that no pip brings."""
    if missing := [name for name in ("gpg", "git") if not shutil.which(name)]:
        sys.exit(f"missing: {', '.join(missing)} (Debian: apt install gpg git)")
    if directory.exists():
        if any(directory.iterdir()) and not (directory / MARK).exists():
            sys.exit(f"{directory}: expected nothing, or what an earlier playground left; found other files")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / MARK).touch()


def make_sample(directory: pathlib.Path) -> None:
    """The data root, without what this file system cannot hold."""
    probe = directory / "probe"
    probe.touch()
    reasons = permissions.why_unsupported(probe, SECOND_USER)
    probe.unlink()
    instance = make_instance(directory / "data", leave_out=[kind for kind in ("acls", "xattrs") if reasons[kind]])
    print(f"data root      {instance.root}: a tiny model, a configuration, {len(instance.history.records)} old records")


def answer_as_a_model(upstream: FakeUpstream) -> None:
    """The right verdicts for the sample's questions; anything else is safe."""
    verdicts = {
        canary["text"]: f"Safety: {canary['safety']}\nCategories: {', '.join(canary['categories']) or 'None'}"
        for canary in model_tree.canaries()
    }
    upstream.act = lambda handler, body: handler.send_body(
        200, completion(verdicts.get(body["messages"][-1]["content"], SAFE))
    )


def write_private(path: pathlib.Path, text: str) -> None:
    """A file that only its owner may read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def run(directory: pathlib.Path) -> t.NoReturn:
    """Start all of it, say what there is, and wait for Ctrl-C."""
    prepare(directory)
    with contextlib.ExitStack() as started:
        server = started.enter_context(Seaweed(directory / "store"))
        server.make_bucket(BUCKET)
        print(f"object store   {server.endpoint}, bucket {BUCKET}: SeaweedFS")
        make_sample(directory)
        upstream = started.enter_context(FakeUpstream())
        answer_as_a_model(upstream)
        place = directory / "gateway"
        settings = {
            "directory": str(directory / "data" / "logs" / "gateway"),
            "state_directory": str(place / "state"),
            "archive_ledger": str(place / "archived.json"),
        }
        gateway = GatewayProcess(place, upstream.url, log=settings, upstream={"model": "stand-in"})
        (directory / "data" / "logs" / "gateway").mkdir()
        started.enter_context(gateway)
        started.callback(gateway.stop)  # first, so that it ends well; a kill follows only where it does not
        print(f"audit gateway  {address(gateway)}: behind it a stand-in for the model engine")

        write_private(directory / "trial.key", secrets.token_urlsafe(32) + "\n")
        server.rclone_config(directory / "rclone.conf")
        words = {"directory": directory, "collections": link_collection(), "bucket": BUCKET}
        for name, text in {"ansible.cfg": ANSIBLE_CFG, "inventory.yml": INVENTORY}.items():
            (directory / name).write_text(text.format(**words), encoding="utf-8")
        write_environment(directory, gateway)
        print(f"\nReady. In another terminal: cd {directory} && . ./env\nCtrl-C here ends it.", flush=True)
        wanted = Wish(signal.SIGUSR1)
        while True:
            if wanted.granted():
                gateway.stop()
                gateway.start()
                write_environment(directory, gateway)
            time.sleep(0.1)


def address(gateway: GatewayProcess) -> str:
    """Where it listens; another port after each start."""
    return f"http://127.0.0.1:{gateway.port}"


def write_environment(directory: pathlib.Path, gateway: GatewayProcess) -> None:
    """What a shell needs; `restart_gateway` waits for the file, so it appears whole."""
    text = ENVIRONMENT.format(directory=directory, checkout=ROOT, gateway=address(gateway), pid=os.getpid())
    (directory / "env.new").write_text(text, encoding="utf-8")
    (directory / "env.new").replace(directory / "env")


class Wish:
    """Whether a signal came since the last look."""

    def __init__(self, number: signal.Signals):
        self._wished = False
        signal.signal(number, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._wished = True

    def granted(self) -> bool:
        wished, self._wished = self._wished, False
        return wished


def stop(number: int, _frame: object) -> t.NoReturn:
    """SIGTERM and SIGHUP end it as Ctrl-C does, with everything stopped."""
    raise SystemExit(128 + number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / ".playground", help="default: %(default)s")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with contextlib.suppress(KeyboardInterrupt):
        run(options.directory.absolute())


if __name__ == "__main__":
    main()
