# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that all modules which reach a repository share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - Linux with Python 3.9 or newer on the managed host
  - GnuPG 2.2.8 or newer
  - rclone, unless O(repository) is an absolute path
options:
  instance:
    description:
      - Name of the guard service with its data root. It owns one directory of the repository.
      - 1 to 63 letters, digits, dots, underscores and hyphens; a letter or digit first.
    type: str
    required: true
  repository:
    description:
      - Where the snapshots live, an rclone remote and a path (V(oss:guard-backups/prod)), or an absolute path.
      - The bucket or directory must exist. It is never made, because a misspelt name or a missing mount would
        otherwise take backups that nobody finds again.
    type: str
    required: true
  rclone_config:
    description:
      - rclone's configuration file on the managed host. Without it rclone looks in its usual places.
      - rclone's options C(timeout) and C(retries) have no effect in that file; use the options of this module.
    type: path
  rclone_path:
    description:
      - Name or path of the rclone program on the managed host. Not used when O(repository) is an absolute path.
      - A name is looked for in C(PATH). A virtual environment's C(bin) is not in it by itself, so give the whole path
        of an rclone that pip installed.
    type: str
    default: rclone
  gpg_path:
    description: Name or path of the gpg program (GnuPG 2.2.8 or newer).
    type: str
    default: gpg
  retries:
    description: How often each transfer is tried in all, at least 1. rclone gets the same number for its own retries.
    type: int
    default: 3
  idle_timeout:
    description: Seconds without a byte after which a connection is given up.
    type: int
    default: 60
  transfer_timeout:
    description: Seconds that the transfer of one object may take in all.
    type: int
    default: 1800
  state_dir:
    description:
      - Directory for locks, and for what the last run knew, so that the next need not ask the repository.
      - It holds names of files and wrapped keys, nothing secret. It can be lost; the next run is then only slower, or,
        on a host that cannot decrypt, takes a full. But where M(guardops.qwen3guard.fence) has made this host the one
        that writes, it is refused until that module has run again.
      - An ordinary user has to name one of his own.
    type: path
    default: /var/lib/guardops-qwen3guard
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
"""

    LAYER = r"""
options:
  layer:
    description:
      - V(model) is the weights, tokenizer and generation configuration; V(config) the web server's configuration,
        routes and permissions; V(logs) the audit log.
    type: str
    choices: [model, config, logs]
    required: true
"""

    WORKERS = r"""
requirements:
  - The Python library C(zstandard)
options:
  workers:
    description: Parts in work at the same time. By default one for each processor, at least 2 and at most 4.
    type: int
  progress_file:
    description:
      - A file that tells twice a second how far the run is, as JSON with C(phase), C(bytes), C(of_bytes), C(seconds).
        C(watch cat FILE) shows it while the task runs.
    type: path
"""
