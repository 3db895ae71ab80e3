# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RECOVERY.md: how a person restores without this collection. It lies beside the backups.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import shlex

from ..format.repository import Repository
from ..services.keys.base import KeyProvider
from ..services.store import NotStored

_TEXT = """\
# Restore by hand: instance {instance}

What you need: `rclone` (or any other way to copy files out of the store), `gpg`, `zstd`, `tar`, and
the key. No other software of the system that made these backups.

Here `LAYER` stands for `model`, `config` or `logs`, and `SNAPSHOT` for one directory below it, such
as `000012-3f9a2c1d`. The highest number is the newest. A directory without `manifest.json` is an
interrupted run and no backup.

## 1. Fetch one snapshot

```sh
rclone copy {location}/LAYER/SNAPSHOT SNAPSHOT
cd SNAPSHOT
```

`manifest.json` lists all its parts with size and SHA-256. Is each one there, and unchanged?

```sh
sed -n 's/.*"\\(name\\|sha256\\)": *"\\([^"]*\\)".*/\\2/p' manifest.json | paste - - |
  awk '$1 !~ "/" {{ print $2 "  " $1 }}' | sha256sum --check
```

## 2. Get its passphrase

Each snapshot has its own. It stays in a variable of this shell, and is neither shown nor on a disk:

```sh
umask 077
passphrase() {{
{passphrase}}}
secret=$(passphrase)
```

## 3. Decrypt and unpack

gpg checks that nothing was changed, and tar must see the parts in order. The loop stops at the first
part that is damaged; do not use what it has written until then.

```sh
for part in part-*.gpg; do
  printf '%s\\n' "$secret" | gpg --batch --quiet --pinentry-mode loopback --no-symkey-cache \\
      --passphrase-fd 0 --output plain --decrypt "$part" || exit 1
  case "$part" in
    *.zst.gpg) zstd --quiet --decompress --stdout plain || exit 1 ;;
    *) cat plain || exit 1 ;;
  esac
  rm plain
done > snapshot.tar
```

As root, so that owners, access lists and capabilities come back (this is GNU tar; directories stand before
all files, so that their own attributes must wait to the end):

```sh
mkdir restored
LC_ALL=C tar --extract --file snapshot.tar --directory restored --delay-directory-restore \\
    --numeric-owner --same-permissions --acls --xattrs --xattrs-include='*'
```

What tar says of time stamps (old, or in the future) and of an unknown keyword `hdrcharset` (names that are
not UTF-8) is no error.

## 4. What else to know

- **logs**: a snapshot whose manifest says `"type": "full"` stands alone. An `"increment"` holds what was
  written since its `"parent"`. Restore the full named by `"base"`, then every increment up to the one
  you want, each into a directory of its own; the files of all these directories together hold every
  record exactly once. A last line of a full that has no end yet is no record: it is there again, whole, in
  the increment after it.
- **config**: the history is a Git bundle: `git clone restored/.guardops/config.bundle history`.
- `fences/` beside the layers, where it is there: the object with the highest number names the host that
  writes, and under `"newest"` the snapshots that there were when it took over. A higher number whose
  `manifest.json` has no `"fence"`, or a lower one, is of a host that was lost by then: take the one before.
- `records/` beside the layers holds tables by which a record is found; a restore needs none of them.
- `index.gpg` is the list of files with their hashes (the same passphrase, then zstd, then JSON).
- When you are done: `rm snapshot.tar`, and close this shell, which knows the passphrase.
"""


def text(repository: Repository, keys: KeyProvider) -> str:
    """The page for one instance."""
    context = {"instance": repository.instance, "layer": "LAYER", "snapshot": "SNAPSHOT"}
    return _TEXT.format(
        instance=repository.instance,
        location=shlex.quote(repository.store.full_name(repository.instance)),
        passphrase=keys.by_hand(context),
    )


def ensure(repository: Repository, keys: KeyProvider) -> None:
    """Store the page where it is missing or tells of another key."""
    name = f"{repository.instance}/RECOVERY.md"
    wanted = text(repository, keys).encode()
    try:
        present = repository.store.read(name)
    except NotStored:
        present = b""
    if present != wanted:
        repository.store.write(name, wanted)
