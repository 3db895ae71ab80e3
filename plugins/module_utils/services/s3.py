# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only an S3 has: rules by which it moves objects to another storage class by itself.

Private to the collection: use the modules, not this file.

Address and credentials are those of rclone's remote, so that they are kept in one place. They stay in memory.
"""

from __future__ import annotations

import typing as t

from ..errors import GuardError, StoreError
from .store import RcloneStore, Store

try:
    import boto3
    import botocore
    import botocore.config
    import botocore.exceptions
except ImportError:
    boto3 = None

_NO_RULES = "NoSuchLifecycleConfiguration"
# What rclone takes for virtual-hosted (bucket.host); with any other provider the bucket is in the path.
_VIRTUAL_HOSTED = ("", "AWS", "Alibaba", "HuaweiOBS", "Netease", "TencentCOS", "Scaleway", "ArvanCloud", "Qiniu")
_UNSUPPORTED = ("role_arn", "sse_customer_key", "v2_auth")

Rule = dict[str, t.Any]


class Lifecycle:
    """The lifecycle rules of a store's bucket."""

    def __init__(self, store: Store):
        if boto3 is None:
            raise GuardError(
                "Python library boto3", "it on the host where this runs", "none",
                "Install it (requirements/runtime.txt), or use the method copy.",
            )  # fmt: skip
        settings = store.rclone.settings(store.location) if isinstance(store, RcloneStore) else {}
        if settings.get("type") != "s3" or not isinstance(store, RcloneStore):
            found = f"one of type {settings['type']}" if settings else "a directory"
            raise GuardError(
                f"repository {store.location}", "an S3, which has lifecycle rules", found, "Use the method copy."
            )
        for name in _UNSUPPORTED:
            if settings.get(name) not in (None, "", "false"):
                raise GuardError(f"repository {store.location}", f"a remote without {name}", "one that has it",
                                 "Set the rule by other means, or use the method copy.")  # fmt: skip
        self.where = store.location
        self.bucket, _slash, path = store.location.partition(":")[2].strip("/").partition("/")
        self.path = f"{path}/" if path else ""
        self._client = _client(settings)
        self._extra: dict[str, t.Any] = {}

    def rules(self) -> list[Rule]:
        """All rules, also those of others."""
        try:
            answer = self._call("get_bucket_lifecycle_configuration")
        except _Refused as refused:
            if refused.code == _NO_RULES:
                return []
            raise
        name = "TransitionDefaultMinimumObjectSize"  # would fall back to its default
        self._extra = {name: answer[name]} if answer.get(name) else {}
        return list(answer.get("Rules", []))

    def replace(self, rules: list[Rule]) -> None:
        """Set all rules, and read back that they are there."""
        if rules:
            self._call("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules}, **self._extra)
        else:
            self._call("delete_bucket_lifecycle")
        found = self.rules()
        if sorted(map(_comparable, found)) != sorted(map(_comparable, rules)):
            names = ", ".join(str(rule.get("ID", "?")) for rule in found) or "none"
            raise StoreError(
                f"lifecycle rules of {self.where}", "those just set", f"others ({names})",
                "The store does not keep such rules, or somebody else changed them: look at them. "
                "Where it cannot keep them, use the method copy.",
            )  # fmt: skip

    def _call(self, operation: str, **arguments: t.Any) -> dict[str, t.Any]:
        try:
            answer: dict[str, t.Any] = getattr(self._client, operation)(Bucket=self.bucket, **arguments)
        except botocore.exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise _Refused(self.where, operation, code, str(error)) from error
        except botocore.exceptions.BotoCoreError as error:
            raise StoreError(self.where, f"an answer to {operation}", str(error)) from error
        return answer


class _Refused(StoreError):
    """The store answers that it will not."""

    def __init__(self, where: str, operation: str, code: str, text: str):
        self.code = code
        hint = "The credentials need the right to read and set the bucket's lifecycle rules."
        if code in ("NotImplemented", "MethodNotAllowed", "InvalidStorageClass"):
            hint = "The store has no such rules or no such class; the method copy may work."
        super().__init__(f"lifecycle rules of {where}", f"{operation} to work", text, hint)


def _client(settings: t.Mapping[str, str]) -> t.Any:
    """A client that reaches what the remote reaches."""
    style = settings.get("force_path_style", "")
    if not style:
        style = "false" if settings.get("provider", "") in _VIRTUAL_HOSTED else "true"
    config: dict[str, t.Any] = {
        "s3": {"addressing_style": "path" if style == "true" else "virtual"},
        "retries": {"max_attempts": 3}, "connect_timeout": 15, "read_timeout": 60,
    }  # fmt: skip
    credentials: dict[str, t.Any] = {}
    if settings.get("access_key_id"):
        credentials = {
            "aws_access_key_id": settings["access_key_id"],
            "aws_secret_access_key": settings.get("secret_access_key"),
            "aws_session_token": settings.get("session_token") or None,
        }
    elif settings.get("env_auth") != "true":
        config["signature_version"] = botocore.UNSIGNED
    session = boto3.session.Session(profile_name=settings.get("profile") or None)
    endpoint = settings.get("endpoint", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    return session.client(
        "s3", endpoint_url=endpoint or None, region_name=settings.get("region") or "us-east-1",
        config=botocore.config.Config(**config), **credentials,
    )  # fmt: skip


def _comparable(rule: Rule) -> str:
    """A rule as text, whatever form its prefix has and with what stores leave out filled in."""
    plain = {name: value for name, value in rule.items() if value not in ({}, [], None)}
    prefix = plain.pop("Prefix", None)
    if prefix is not None and "Filter" not in plain:
        plain["Filter"] = {"Prefix": prefix}
    return repr(sorted((name, repr(value)) for name, value in plain.items()))
