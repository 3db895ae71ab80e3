# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the option ``key``, which all modules that encrypt or decrypt share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  key:
    description:
      - What wraps and unwraps the data keys of snapshots.
      - Each snapshot is encrypted with a random data key of its own (256 bits; OpenPGP, AES-256). The data key is
        stored in the snapshot's manifest, wrapped by the key provider, and bound to its instance, layer and snapshot.
        Who loses the key provider's key loses all snapshots, so keep a copy of it away from the host.
      - An option that belongs to another provider than the chosen one is an error, so that no setting is ignored.
    type: dict
    required: true
    suboptions:
      provider:
        description:
          - V(aws_kms) lets AWS KMS, or a service with the same protocol, make and unwrap the data keys.
            Needs the Python library C(boto3) on the managed host.
          - V(gpg_recipients) wraps the data keys for OpenPGP public keys. A host that has only the public keys can add
            snapshots and cannot read any, its own included. A public key does not prove who made a snapshot.
            Needs the Python library C(python-gnupg), version 0.5 or newer, on the managed host.
          - V(file) wraps the data keys with a secret in a file. It is meant for trials, as whoever gets onto the host
            gets the file and so every snapshot.
        type: str
        required: true
        choices: [aws_kms, gpg_recipients, file]
      kms_key_id:
        description:
          - The symmetric KMS key as a key id, a key ARN, C(alias/NAME) or an alias ARN.
          - Required with O(key.provider=aws_kms). Backups need C(kms:GenerateDataKey) on it, restores and verifications
            from the level V(decrypted) on need C(kms:Decrypt).
          - A snapshot that another KMS key wrapped is refused with an error that says so; its manifest names that key.
        type: str
      kms_region:
        description:
          - The region of the KMS key.
          - Also needed with O(key.kms_endpoint_url), as requests are signed with it. Without it boto3's own
            configuration is used; when that has none, the module fails.
        type: str
      kms_endpoint_url:
        description:
          - The address of the KMS service, such as V(https://kms.example.org), where it is not AWS's own.
          - An endpoint that cannot be reached is an error after four tries of at most 15 seconds each.
        type: str
      aws_access_key_id:
        description:
          - The access key id; needs O(key.aws_secret_access_key).
          - Without it and without O(key.aws_profile) boto3 looks in its usual places, the instance's role among them,
            which is the safest choice on AWS as no secret is stored.
        type: str
      aws_secret_access_key:
        description:
          - The secret access key; needs O(key.aws_access_key_id).
        type: str
      aws_session_token:
        description:
          - The session token of temporary credentials; needs O(key.aws_access_key_id).
        type: str
      aws_profile:
        description:
          - A profile in boto3's configuration files on the managed host. Not together with O(key.aws_access_key_id).
        type: str
      public_key_files:
        description:
          - Files on the managed host with OpenPGP public keys, armored or binary, made by C(gpg --armor --export).
          - Every key in every file becomes a recipient, and the private key of any one of them can unwrap.
          - Needed to back up with O(key.provider=gpg_recipients).
          - A key that has expired, was revoked or cannot encrypt is an error, and so is a private key in such a file.
        type: list
        elements: path
      private_key_file:
        description:
          - A file on the managed host with the OpenPGP private key of a recipient.
          - Needed to restore with O(key.provider=gpg_recipients), unless O(key.gpg_home) is given. Do not give it
            to a host that only backs up.
          - It is imported into a throw-away GnuPG home, in memory where the host has a tmpfs, and removed afterwards.
        type: path
      private_key_passphrase:
        description:
          - The passphrase of the private key, one line.
          - It is passed to gpg by a pipe, never as an argument, in the environment or in a file.
        type: str
      gpg_home:
        description:
          - An existing GnuPG home on the managed host with the private key of a recipient.
            Not together with O(key.private_key_file).
          - Its C(gpg.conf) is not read. gpg never asks on a terminal, so the key has no passphrase, or
            O(key.private_key_passphrase) is given, or a running agent knows it.
        type: path
      key_file:
        description:
          - The file with the secret; one line of 32 to 255 printable ASCII characters without a space.
          - Required with O(key.provider=file). It is never made by itself; one is made with
            C((umask 077; head -c 32 /dev/urandom | base64 > FILE)).
          - It must belong to root or to the user who runs the module, and nobody else may be able to read it
            (mode V(0600) or V(0400)); otherwise the module fails.
        type: path
"""
