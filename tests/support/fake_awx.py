# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for AWX's REST API, in memory: as much of it as the modules of awx.awx need to make what role awx makes.

It is not AWX. What AWX refuses, of what the role could get wrong, is refused here too: names that are not there,
playbooks that the project has not, surveys, answers and recurrence rules that AWX does not take, secrets read back.

    with FakeAwx(playbooks=["playbooks/backup.yml"]) as awx:
        ...                                   # awx.url, awx.token
        awx.one("schedules", "nightly")["rrule"]
"""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import threading
import typing as t
import urllib.parse

from .awx_rules import Object, Refused, check_answers, check_injectors, check_rule, check_survey

ENCRYPTED = "$encrypted$"
# Of each collection: the fields that name another object, and where that is.
REFERENCES: dict[str, dict[str, str]] = {
    "organizations": {},
    "credential_types": {},
    "credentials": {"organization": "organizations", "credential_type": "credential_types"},
    "execution_environments": {"organization": "organizations"},
    "notification_templates": {"organization": "organizations"},
    "projects": {"organization": "organizations", "credential": "credentials"},
    "project_updates": {},
    "inventories": {"organization": "organizations"},
    "inventory_sources": {
        "inventory": "inventories", "source_project": "projects", "execution_environment": "execution_environments",
    },
    "job_templates": {
        "organization": "organizations", "project": "projects", "inventory": "inventories",
        "execution_environment": "execution_environments",
    },
    "workflow_job_templates": {"organization": "organizations"},
    "workflow_job_template_nodes": {
        "workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates",
    },
    "schedules": {"unified_job_template": "unified_job_templates"},
}  # fmt: skip
# What starts jobs; all of these are also found in the collection unified_job_templates.
UNIFIED = ("job_templates", "workflow_job_templates", "projects", "inventory_sources")
# Deleting what this field names deletes the object too; other fields become empty.
OWNERS = ("organization", "inventory", "workflow_job_template")
LINKS = {
    "credentials": "credentials",
    "galaxy_credentials": "credentials",
    "notification_templates_error": "notification_templates",
    "notification_templates_success": "notification_templates",
    "success_nodes": "workflow_job_template_nodes",
    "failure_nodes": "workflow_job_template_nodes",
    "always_nodes": "workflow_job_template_nodes",
}
BUILT_IN_TYPES = {
    "Machine": ("ssh", ["ssh_key_data", "password", "become_password", "ssh_key_unlock"], ["username"]),
    "Source Control": ("scm", ["password", "ssh_key_data", "ssh_key_unlock"], ["username"]),
    "Ansible Galaxy/Automation Hub API Token": ("galaxy", ["token"], ["url", "auth_url"]),
}


def singular(collection: str) -> str:
    return "inventory" if collection == "inventories" else collection[:-1]


class FakeAwx:
    """Serves on a free port of the loopback interface until the end of the ``with`` block."""

    def __init__(self, playbooks: t.Iterable[str]):
        self.playbooks = set(playbooks)
        self.token = secrets.token_urlsafe(24)
        self.user, self.password = "admin", secrets.token_urlsafe(12)
        self.objects: dict[str, dict[int, Object]] = {name: {} for name in REFERENCES}
        self.links: dict[tuple[int, str], list[int]] = {}
        self.surveys: dict[int, Object] = {}
        self.changes: list[tuple[str, str, Object]] = []  # requests that wrote, tokens aside
        self._last_id = 0
        self._lock = threading.Lock()
        for name, (kind, hidden, shown) in BUILT_IN_TYPES.items():
            fields = [{"id": i, "secret": True} for i in hidden] + [{"id": i} for i in shown]
            self.add("credential_types", {"name": name, "kind": kind, "managed": True, "inputs": {"fields": fields}})
        galaxy = self.one("credential_types", "Ansible Galaxy/Automation Hub API Token")["id"]
        self.add("credentials", {"name": "Ansible Galaxy", "credential_type": galaxy, "inputs": {}})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeAwx:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- what tests ask

    def names(self, collection: str) -> list[str]:
        return sorted(found["name"] for found in self.objects[collection].values() if not found.get("managed"))

    def one(self, collection: str, name: str) -> Object:
        key = "identifier" if collection == "workflow_job_template_nodes" else "name"
        (found,) = [found for found in self.objects[collection].values() if found[key] == name]
        return found

    def linked(self, collection: str, name: str, relation: str) -> list[str]:
        """Names of what it is linked to."""
        ids = self.links.get((self.one(collection, name)["id"], relation), [])
        others = [self.objects[LINKS[relation]][i] for i in ids]
        return sorted(other.get("name") or other["identifier"] for other in others)

    def survey(self, template: str) -> list[Object]:
        return t.cast("list[Object]", self.surveys[self.one("job_templates", template)["id"]]["spec"])

    def stored_in_plain(self) -> str:
        """All that is stored, but for the fields that AWX encrypts."""
        shown = [self._shown(name, found) for name, all_ in self.objects.items() for found in all_.values()]
        return json.dumps([shown, list(self.surveys.values())])

    # -- requests

    def answer(self, method: str, path: str, query: dict[str, str], body: Object) -> tuple[int, t.Any]:
        with self._lock:
            parts = path.removeprefix("/api/v2/").strip("/").split("/")
            if method != "GET" and parts[0] != "tokens":
                self.changes.append((method, path, body))
            if parts == ["ping"] or parts == ["config"]:
                return 200, {"version": "24.6.1"}
            if parts[0] == "tokens":
                return (201, {"id": 1, "token": self.token}) if method == "POST" else (204, None)
            if len(parts) == 1:
                return self._collection(method, parts[0], query, body)
            found = self._get(parts[0], int(parts[1]))
            if len(parts) == 2:
                return self._object(method, parts[0], found, body)
            if parts[2] == "survey_spec":
                return self._survey(method, found, body)
            return self._link(method, found, parts[2], body)

    def _get(self, collection: str, identity: int) -> Object:
        try:
            return self.objects[collection][identity]
        except KeyError:
            raise Refused(404, {"detail": "Not found."}) from None

    def _collection(self, method: str, collection: str, query: dict[str, str], body: Object) -> tuple[int, t.Any]:
        if method == "POST":
            self._check(collection, body, None)
            created = self.add(collection, body)
            if collection == "projects" and created.get("scm_type"):
                update = self.add("project_updates", {"status": "successful"})
                created["summary_fields"] = {"current_update": {"id": update["id"]}}
            return 201, self._shown(collection, created)
        collections = UNIFIED if collection == "unified_job_templates" else (collection,)
        if not all(name in self.objects for name in collections):
            raise Refused(404, {"detail": "Not found."})
        found = [self._shown(n, o) for n in collections for o in self.objects[n].values() if self._matches(o, query)]
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}

    @staticmethod
    def _matches(found: Object, query: dict[str, str]) -> bool:
        either = {key[4:]: value for key, value in query.items() if key.startswith("or__")}
        every = {key: value for key, value in query.items() if not key.startswith("or__") and key != "page_size"}
        return all(str(found.get(key)) == value for key, value in every.items()) and (
            not either or any(str(found.get(key)) == value for key, value in either.items())
        )

    def _object(self, method: str, collection: str, found: Object, body: Object) -> tuple[int, t.Any]:
        if method == "PATCH":
            self._check(collection, {**found, **body}, found)
            found.update(self._normal(collection, body))
        elif method == "DELETE":
            in_use = [c for c in self.objects["credentials"].values() if c["credential_type"] == found["id"]]
            if collection == "credential_types" and in_use:
                raise Refused(403, {"detail": "Credential types that are in use cannot be deleted"})
            self._delete(collection, found["id"])
            return (202, {}) if collection == "inventories" else (204, None)
        return 200, self._shown(collection, found)

    def _delete(self, collection: str, identity: int) -> None:
        del self.objects[collection][identity]
        self.surveys.pop(identity, None)
        for ids in self.links.values():
            ids[:] = [i for i in ids if i != identity]
        for other, references in REFERENCES.items():
            for field, target in references.items():
                if target != collection and not (target == "unified_job_templates" and collection in UNIFIED):
                    continue
                for found in [o for o in self.objects[other].values() if o.get(field) == identity]:
                    if field in OWNERS or other == "schedules":
                        if found["id"] in self.objects[other]:
                            self._delete(other, found["id"])
                    else:
                        found[field] = None

    def _link(self, method: str, found: Object, relation: str, body: Object) -> tuple[int, t.Any]:
        ids = self.links.setdefault((found["id"], relation), [])
        others = self.objects[LINKS[relation]]
        if method == "GET":
            results = [self._shown(LINKS[relation], others[i]) for i in ids]
            return 200, {"count": len(results), "next": None, "previous": None, "results": results}
        if body.get("disassociate"):
            ids.remove(body["id"])
            return 204, None
        other = self._get(LINKS[relation], body["id"])
        if relation == "credentials" and other["credential_type"] in [others[i]["credential_type"] for i in ids]:
            raise Refused(400, {"error": "Cannot assign multiple credentials of one type."})
        ids.append(other["id"])
        return 204, None

    def _survey(self, method: str, template: Object, body: Object) -> tuple[int, t.Any]:
        if method == "POST":
            check_survey(body)
            self.surveys[template["id"]] = body
        elif method == "DELETE":
            self.surveys.pop(template["id"], None)
        return 200, self.surveys.get(template["id"], {})

    # -- objects

    def add(self, collection: str, body: Object) -> Object:
        self._last_id += 1
        identity = self._last_id
        url = f"/api/v2/{collection}/{identity}/"
        created = {
            "id": identity, "url": url, "type": singular(collection), "summary_fields": {}, "scm_revision": "",
            "related": {"survey_spec": url + "survey_spec/"}, **self._normal(collection, body),
        }  # fmt: skip
        self.objects[collection][identity] = created
        return created

    @staticmethod
    def _normal(collection: str, body: Object) -> Object:
        """As AWX stores it."""
        if collection == "inventories":
            return {
                key: "" if key in ("kind", "host_filter") and value is None else value for key, value in body.items()
            }
        if collection == "notification_templates" and body.get("notification_type") == "webhook":
            configuration = {"http_method": "POST", "disable_ssl_verification": False, "username": "", "password": ""}
            return {**body, "notification_configuration": {**configuration, **body["notification_configuration"]}}
        return dict(body)

    def _shown(self, collection: str, found: Object) -> Object:
        """As AWX tells it: without secrets."""
        if collection == "credentials":
            fields = self.objects["credential_types"][found["credential_type"]]["inputs"]["fields"]
            hidden = {field["id"] for field in fields if field.get("secret")}
            inputs = {k: ENCRYPTED if k in hidden and v else v for k, v in found.get("inputs", {}).items()}
            return {**found, "inputs": inputs}
        if collection == "notification_templates":
            configuration = found["notification_configuration"]
            hidden = {"password", "token"}
            return {
                **found,
                "notification_configuration": {
                    k: ENCRYPTED if k in hidden and v else v for k, v in configuration.items()
                },
            }
        return found

    def _check(self, collection: str, wanted: Object, existing: Object | None) -> None:
        """What AWX would refuse."""
        for field, target in REFERENCES[collection].items():
            value = wanted.get(field)
            targets = UNIFIED if target == "unified_job_templates" else (target,)
            if value is not None and not any(value in self.objects[name] for name in targets):
                raise Refused(400, {field: [f'Invalid pk "{value}" - object does not exist.']})
        same = (
            "name",
            "organization",
            "credential_type",
            "unified_job_template",
            "identifier",
            "workflow_job_template",
        )
        for other in self.objects[collection].values():
            if other is not existing and all(other.get(key) == wanted.get(key) for key in same):
                raise Refused(400, {"__all__": [f"{collection} with this name already exists."]})
        if collection == "job_templates" and wanted["playbook"] not in self.playbooks:
            raise Refused(400, {"playbook": ["Playbook not found for project."]})
        if collection == "credential_types" and not wanted.get("managed"):
            check_injectors(wanted)
        if collection == "credentials":
            fields = self.objects["credential_types"][wanted["credential_type"]]["inputs"]["fields"]
            if extra := set(wanted.get("inputs", {})) - {field["id"] for field in fields}:
                raise Refused(400, {"inputs": [f"Additional properties are not allowed ({sorted(extra)})"]})
        if collection == "schedules":
            check_rule(wanted["rrule"])
        if collection in ("schedules", "workflow_job_template_nodes"):
            survey = self.surveys.get(wanted["unified_job_template"], {"spec": []})
            check_answers(survey["spec"], wanted.get("extra_data", {}))

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        awx = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parsed = urllib.parse.urlsplit(self.path)
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
                try:
                    if not self._is_known(parsed.path):
                        raise Refused(401, {"detail": "Authentication credentials were not provided."})
                    status, answer = awx.answer(
                        self.command, parsed.path, dict(urllib.parse.parse_qsl(parsed.query)), body
                    )
                except Refused as refused:
                    status, answer = refused.status, refused.body
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-API-Product-Name", "AWX")
                self.send_header("X-API-Product-Version", "24.6.1")
                self.end_headers()
                self.wfile.write(data)

            def _is_known(self, path: str) -> bool:
                kind, _space, value = (self.headers.get("Authorization") or "").partition(" ")
                if kind == "Basic" and path.startswith("/api/v2/tokens/"):
                    return base64.b64decode(value).decode() == f"{awx.user}:{awx.password}"
                return kind == "Bearer" and value == awx.token

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002, named by the library
                """Quiet."""

        return Handler
