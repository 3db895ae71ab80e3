# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data keys from AWS KMS, or from anything that speaks its protocol.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
import typing as t

from ...errors import IntegrityError, KeyProviderError
from .base import DataKey, KeyProvider, from_manifest

try:
    import boto3
    import botocore.config
    import botocore.exceptions
except ImportError:
    HAS_BOTO3 = False
else:
    HAS_BOTO3 = True

# A backup must not hang on a key service: four tries of at most 15 s each.
_CONNECT_SECONDS = 5
_READ_SECONDS = 10
_TRIES = 4

_CREDENTIALS_HINT = "Check aws_access_key_id, aws_secret_access_key, aws_session_token or aws_profile."

# KMS's error code: what was found, what to do.
_REFUSALS: dict[str, tuple[str, str]] = {
    "AccessDeniedException": (
        "access denied",
        "Let the key's policy allow kms:GenerateDataKey and, to restore, kms:Decrypt.",
    ),
    "DisabledException": ("a disabled key", "Enable it in KMS; nothing can be read until then."),
    "KMSInvalidStateException": (
        "a key in a state that forbids it",
        "Is its deletion scheduled? Cancel that: without it no snapshot opens.",
    ),
    "KeyUnavailableException": ("a key that is unavailable now", "Try again later."),
    "NotFoundException": ("no such key", "Check kms_key_id and kms_region."),
    "IncorrectKeyException": (
        "a data key that another KMS key wrapped",
        "Set kms_key_id to the key that the manifest names.",
    ),
    "InvalidCiphertextException": (
        "a wrapped key that is damaged or of another snapshot",
        "The encryption context (instance, layer, snapshot) must be that of the backup: was the manifest moved?",
    ),
    "InvalidKeyUsageException": ("a key for another use", "Use a symmetric key for encryption."),
    "ThrottlingException": ("too many requests", "Try again later."),
    "UnrecognizedClientException": ("unknown credentials", _CREDENTIALS_HINT),
    "InvalidClientTokenId": ("unknown credentials", _CREDENTIALS_HINT),
    "InvalidSignatureException": ("a secret access key that does not fit", _CREDENTIALS_HINT),
    "SignatureDoesNotMatch": ("a secret access key that does not fit", _CREDENTIALS_HINT),
    "ExpiredTokenException": ("expired credentials", "Get a new session token."),
}


class AwsKms(KeyProvider):
    """KMS makes each data key and keeps what unwraps it; the context is its encryption context."""

    name = "aws_kms"

    def __init__(
        self,
        key_id: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
    ):
        if not HAS_BOTO3:
            raise KeyProviderError(
                "boto3", "the Python library", "it not installed", "Install boto3 for the Python that runs the module."
            )
        self.key_id = key_id
        self.region = region
        self.endpoint_url = endpoint_url
        try:
            session = boto3.session.Session(
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                aws_session_token=session_token,
                region_name=region,
                profile_name=profile,
            )
            self._client = session.client(
                "kms",
                endpoint_url=endpoint_url,
                config=botocore.config.Config(
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    retries={"mode": "standard", "total_max_attempts": _TRIES},
                ),
            )
        except botocore.exceptions.NoRegionError as error:
            raise KeyProviderError(
                "kms_region",
                "the region of the KMS key",
                "none set",
                "Set it, also where kms_endpoint_url is given: requests are signed with it.",
            ) from error
        except botocore.exceptions.BotoCoreError as error:
            raise KeyProviderError("aws_kms", "usable settings", str(error), _CREDENTIALS_HINT) from error
        except ValueError as error:
            raise KeyProviderError(
                "kms_endpoint_url",
                "an address like https://kms.example.org",
                str(error),
            ) from error

    @property
    def can_unwrap(self) -> bool:
        """As far as the settings tell; KMS may still refuse."""
        return True

    def new_key(self, context: dict[str, str]) -> DataKey:
        answer = self._ask("generate_data_key", KeyId=self.key_id, NumberOfBytes=32, EncryptionContext=context)
        wrapped = {
            "provider": self.name,
            "key_id": answer["KeyId"],
            "region": self._client.meta.region_name,
            "kms_ciphertext": base64.b64encode(answer["CiphertextBlob"]).decode("ascii"),
        }
        return DataKey(_passphrase(answer["Plaintext"]), wrapped)

    def unwrap(self, wrapped: dict[str, t.Any], context: dict[str, str]) -> bytes:
        text = self._field(wrapped, "kms_ciphertext")
        try:
            blob = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise IntegrityError("data key", "base64 in the field kms_ciphertext", str(error)) from error
        # Our key, not the one that the manifest names: a forged manifest could name its forger's, and
        # KMS would unwrap with that.
        answer = self._ask("decrypt", KeyId=self.key_id, CiphertextBlob=blob, EncryptionContext=context)
        return _passphrase(answer["Plaintext"])

    def by_hand(self, context: dict[str, str]) -> str:
        command = [
            "aws",
            "kms",
            "decrypt",
            "--ciphertext-blob",
            "fileb://data-key.wrapped",
            "--key-id",
            self.key_id,
            "--encryption-context",
            json.dumps(context, ensure_ascii=False, sort_keys=True),
        ]
        if self._client.meta.region_name:
            command += ["--region", self._client.meta.region_name]
        if self.endpoint_url:
            command += ["--endpoint-url", self.endpoint_url]
        command += ["--query", "Plaintext", "--output", "text"]
        return (
            "# With the AWS command line tool, and credentials that may use kms:Decrypt on this key:\n"
            f"{from_manifest('kms_ciphertext')} | base64 -d > data-key.wrapped\n"
            f"{shlex.join(command)}\n"
        )

    def _ask(self, operation: str, **arguments: t.Any) -> dict[str, t.Any]:
        thing = f"KMS key {self.key_id}"
        expected = f"KMS to do {operation} with it"
        try:
            answer: dict[str, t.Any] = getattr(self._client, operation)(**arguments)
        except botocore.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown error")
            message = error.response.get("Error", {}).get("Message", "")
            found, hint = _REFUSALS.get(code, ("a refusal", ""))
            raise KeyProviderError(thing, expected, f"{found} ({code}: {message})", hint) from error
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
            raise KeyProviderError(thing, expected, f"no usable credentials ({error})", _CREDENTIALS_HINT) from error
        except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError) as error:
            raise KeyProviderError(
                thing,
                expected,
                f"no answer from {self._client.meta.endpoint_url} ({error})",
                "Check kms_endpoint_url, kms_region and the network.",
            ) from error
        except botocore.exceptions.BotoCoreError as error:
            raise KeyProviderError(thing, expected, str(error)) from error
        return answer


def _passphrase(plain: bytes) -> bytes:
    """As ``aws kms decrypt --query Plaintext --output text`` prints it."""
    if len(plain) != 32:
        raise IntegrityError("data key", "32 bytes from KMS", f"{len(plain)} bytes")
    return base64.b64encode(plain)
