# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a module's option ``key`` to a key provider. Documented in plugins/doc_fragments/key.py.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import typing as t

from ...errors import KeyProviderError
from ..gpg import Gpg
from .base import KeyProvider
from .key_file import KeyFile

# no_log is False, not absent, where a name only sounds secret: Ansible warns otherwise.
_SUBOPTIONS: dict[str, dict[str, t.Any]] = {
    "provider": {"type": "str", "required": True, "choices": ["aws_kms", "gpg_recipients", "file"]},
    "kms_key_id": {"type": "str", "no_log": False},
    "kms_region": {"type": "str"},
    "kms_endpoint_url": {"type": "str"},
    "aws_access_key_id": {"type": "str", "no_log": False},
    "aws_secret_access_key": {"type": "str", "no_log": True},
    "aws_session_token": {"type": "str", "no_log": True},
    "aws_profile": {"type": "str"},
    "public_key_files": {"type": "list", "elements": "path", "no_log": False},
    "private_key_file": {"type": "path", "no_log": False},
    "private_key_passphrase": {"type": "str", "no_log": True},
    "gpg_home": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
}

KEY_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "key": {"type": "dict", "required": True, "no_log": False, "options": _SUBOPTIONS},
}

_OF_PROVIDER: dict[str, tuple[str, ...]] = {
    "aws_kms": (
        "kms_key_id",
        "kms_region",
        "kms_endpoint_url",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "aws_profile",
    ),
    "gpg_recipients": ("public_key_files", "private_key_file", "private_key_passphrase", "gpg_home"),
    "file": ("key_file",),
}


def provider_from_options(options: dict[str, t.Any], gpg: Gpg) -> KeyProvider:
    """The provider that ``key`` describes. Raises on what is missing, contradictory or not of this provider."""
    provider = options.get("provider")
    if provider not in _OF_PROVIDER:
        raise KeyProviderError("key.provider", f"one of {', '.join(_OF_PROVIDER)}", f"{provider!r}")
    given = {name: value for name, value in options.items() if name != "provider" and value not in (None, "", [])}
    strangers = sorted(set(given) - set(_OF_PROVIDER[provider]))
    if strangers:
        # The names only: a value could be a secret.
        raise KeyProviderError(
            f"key with provider {provider}",
            f"only {', '.join(_OF_PROVIDER[provider])}",
            ", ".join(strangers),
            "Remove what is too much, or change the provider.",
        )
    if provider == "aws_kms":
        return _aws_kms(given)
    if provider == "gpg_recipients":
        return _gpg_recipients(given, gpg)
    _require(given, provider, "key_file")
    return KeyFile(given["key_file"], gpg)


def _aws_kms(given: dict[str, t.Any]) -> KeyProvider:
    from .aws_kms import AwsKms  # here, because boto3 takes a quarter of a second to load

    _require(given, "aws_kms", "kms_key_id")
    if ("aws_access_key_id" in given) != ("aws_secret_access_key" in given):
        raise KeyProviderError("key", "aws_access_key_id and aws_secret_access_key", "only one of them")
    if "aws_session_token" in given and "aws_access_key_id" not in given:
        raise KeyProviderError("key", "aws_access_key_id beside aws_session_token", "the token alone")
    if "aws_profile" in given and "aws_access_key_id" in given:
        raise KeyProviderError(
            "key", "either aws_profile or aws_access_key_id", "both", "They may belong to two accounts: keep one."
        )
    return AwsKms(
        given["kms_key_id"],
        region=given.get("kms_region"),
        endpoint_url=given.get("kms_endpoint_url"),
        access_key=given.get("aws_access_key_id"),
        secret_key=given.get("aws_secret_access_key"),
        session_token=given.get("aws_session_token"),
        profile=given.get("aws_profile"),
    )


def _gpg_recipients(given: dict[str, t.Any], gpg: Gpg) -> KeyProvider:
    from .gpg_recipients import GpgRecipients  # here, because python-gnupg takes its time too

    if not {"public_key_files", "private_key_file", "gpg_home"}.intersection(given):
        raise KeyProviderError(
            "key with provider gpg_recipients",
            "public_key_files to back up, private_key_file or gpg_home to restore",
            "none of them",
        )
    if "private_key_file" in given and "gpg_home" in given:
        raise KeyProviderError("key", "either private_key_file or gpg_home", "both")
    if "private_key_passphrase" in given and not {"private_key_file", "gpg_home"}.intersection(given):
        raise KeyProviderError(
            "key", "private_key_file or gpg_home beside private_key_passphrase", "the passphrase alone"
        )
    return GpgRecipients(
        given.get("public_key_files", []),
        gpg,
        private_key_file=given.get("private_key_file"),
        private_key_passphrase=given.get("private_key_passphrase"),
        gpg_home=given.get("gpg_home"),
    )


def _require(given: dict[str, t.Any], provider: str, name: str) -> None:
    if name not in given:
        raise KeyProviderError(f"key with provider {provider}", f"the option {name}", "it not set")
