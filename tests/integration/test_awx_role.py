# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role awx, with the real modules of awx.awx, against a stand-in of AWX's API; and its schedules as instants."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import re
import secrets
import subprocess
import typing as t
import zoneinfo

import pytest
import yaml
from dateutil import rrule

from support.checkout import COLLECTIONS, ROOT, find_tool
from support.fake_awx import FakeAwx
from support.galaxy import other_collections

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ZONE = "Europe/Berlin"
STRANGER = "Somebody else's"

pytestmark = pytest.mark.slow


class Run(t.NamedTuple):
    """One run of the role."""

    rc: int
    output: str
    changes: list[tuple[str, str, dict[str, t.Any]]]  # requests that wrote something

    @property
    def changed(self) -> int:
        (count,) = re.findall(r"changed=(\d+)", self.output)
        return int(count)


class Site:
    """A controller with the role, and the AWX that it works on."""

    def __init__(self, work: pathlib.Path, awx: FakeAwx, collections: t.Sequence[pathlib.Path]):
        self.work, self.awx, self.collections = work, awx, collections
        self.secrets = {
            name: f"{name} {secrets.token_urlsafe(12)}"
            for name in (
                "rclone_config",
                "kms_secret_access_key",
                "audit_key",
                "alert_urls",
                "ssh key",
                "mail password",
            )
        }
        play = {"hosts": "localhost", "gather_facts": False, "roles": ["guardops.qwen3guard.awx"]}
        (work / "site.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        variables = work / "variables.json"
        variables.write_text(json.dumps(self._variables()), encoding="utf-8")

    def _variables(self) -> dict[str, t.Any]:
        mail = {"host": "smtp.example.org", "password": self.secrets["mail password"], "recipients": ["x@example.org"]}
        return {
            "awx_controller_host": self.awx.url,
            "awx_controller_oauthtoken": self.awx.token,
            "awx_time_zone": ZONE,
            "awx_project_scm_url": "https://git.example.org/guards.git",
            "awx_inventory_source_path": "inventories/production/",
            "awx_inventory_variables": {"guardops_repository": "oss:guard-backups"},
            "awx_execution_environment_image": "registry.example.org/ee:1",
            "awx_galaxy_credentials": ["Ansible Galaxy"],
            "awx_secrets": {
                "kms_access_key_id": "AK1",
                **{n: self.secrets[n] for n in ("rclone_config", "kms_secret_access_key", "audit_key", "alert_urls")},
            },
            "awx_credentials": [
                {
                    "name": "guards ssh",
                    "credential_type": "Machine",
                    "inputs": {"username": "deploy", "ssh_key_data": self.secrets["ssh key"]},
                }
            ],
            "awx_notifications": [
                {"name": "duty", "type": "email", "success": True, "configuration": mail},
                {"name": "hook", "type": "webhook", "configuration": {"url": "http://hook.example.org", "headers": {}}},
            ],
            "awx_schedules_off": ["logs in full every day"],
            "awx_drill_instance": "guard-01",
            "awx_drill_hosts": "spare-01",
            "awx_prune": True,
        }

    def run(self, *flags: str, **extra: t.Any) -> Run:
        del self.awx.changes[:]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANSIBLE_", "CONTROLLER_", "TOWER_"))
        }
        environment.update(
            HOME=str(self.work),
            ANSIBLE_HOME=str(self.work / "ansible"),
            ANSIBLE_COLLECTIONS_PATH=os.pathsep.join(map(str, self.collections)),
            ANSIBLE_PIPELINING="true",
            ANSIBLE_NOCOLOR="true",
        )
        done = subprocess.run(
            [
                find_tool("ansible-playbook"),
                *("--extra-vars", f"@{self.work / 'variables.json'}"),
                *("--extra-vars", json.dumps(extra)),
                *flags,
                str(self.work / "site.yml"),
            ],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        return Run(done.returncode, done.stdout, list(self.awx.changes))


class Story(t.NamedTuple):
    """What the runs did, in this order."""

    site: Site
    forecast: Run
    first: Run
    second: Run


@pytest.fixture(scope="module")
def awx() -> t.Iterator[FakeAwx]:
    with FakeAwx([f"playbooks/{name}.yml" for name in PLAYBOOKS]) as server:
        yield server


@pytest.fixture(scope="module")
def story(awx: FakeAwx, tmp_path_factory: pytest.TempPathFactory) -> Story:
    site = Site(tmp_path_factory.mktemp("awx"), awx, [COLLECTIONS, other_collections()])
    awx.add("organizations", {"name": STRANGER})
    forecast = site.run("--check")
    first = site.run("-v")
    assert first.rc == 0, first.output
    return Story(site, forecast, first, site.run("-v"))


# -- what is made


def test_check_mode_makes_nothing_and_tells_the_names(story: Story) -> None:
    assert (story.forecast.rc, story.forecast.changes) == (0, []), story.forecast.output
    assert story.forecast.changed == 1
    made = {
        name for found in story.site.awx.objects.values() for name in (o.get("name") for o in found.values()) if name
    }
    told = set(re.findall(r'^ +"([^"]+)",?$', story.forecast.output, re.MULTILINE))
    assert "Qwen3Guard backup" in told
    assert told <= made


def test_the_second_run_changes_nothing(story: Story) -> None:
    assert story.second.rc == 0, story.second.output
    assert story.second.changed == 0
    # awx.awx tells AWX two things again each time, which change nothing there: an inventory's kind, which is empty, and
    # a webhook without the fields that AWX fills in.
    told_again = {(method, path.split("/")[3]) for method, path, _body in story.second.changes}
    assert told_again <= {("PATCH", "inventories"), ("PATCH", "notification_templates")}


def test_each_playbook_has_a_job_template(story: Story, awx: FakeAwx) -> None:
    found = {
        template["name"]: (template["playbook"], template["project"], template["inventory"])
        for template in awx.objects["job_templates"].values()
    }
    project, inventory = awx.one("projects", "Qwen3Guard"), awx.one("inventories", "Qwen3Guard")
    assert found == {f"Qwen3Guard {n}": (f"playbooks/{n}.yml", project["id"], inventory["id"]) for n in PLAYBOOKS}
    for name in found:
        assert awx.linked("job_templates", name, "credentials") == ["Qwen3Guard repository and keys", "guards ssh"]
        assert awx.linked("job_templates", name, "notification_templates_error") == [
            "Qwen3Guard duty",
            "Qwen3Guard hook",
        ]
    assert awx.linked("job_templates", "Qwen3Guard drill", "notification_templates_success") == ["Qwen3Guard duty"]
    assert awx.linked("job_templates", "Qwen3Guard backup", "notification_templates_success") == []
    (source,) = awx.objects["inventory_sources"].values()
    assert (source["source_path"], source["source_project"]) == ("inventories/production/", project["id"])
    assert awx.linked("organizations", "Qwen3Guard", "galaxy_credentials") == ["Ansible Galaxy"]


def test_surveys_ask_what_an_operator_must_say(story: Story, awx: FakeAwx) -> None:
    questions = {question["variable"]: question for question in awx.survey("Qwen3Guard recover")}
    assert {"guardops_instance", "guardops_hosts", "guardops_confirm_instance"} <= set(questions)
    for name in ("guardops_instance", "guardops_hosts", "guardops_confirm_instance"):
        assert questions[name]["required"]
        assert "default" not in questions[name]
    assert questions["guardops_budget_seconds"]["default"] == 300
    (trace_id,) = awx.survey("Qwen3Guard trace")
    assert (trace_id["variable"], trace_id["required"]) == ("guardops_trace_id", True)
    window = [question["variable"] for question in awx.survey("Qwen3Guard export") if question["required"]]
    assert window[:2] == ["guardops_export_start", "guardops_export_end"]
    (apply,) = awx.survey("Qwen3Guard prune")
    assert (apply["variable"], apply["default"]) == ("guardops_prune_apply", "false")


def test_surveys_ask_for_nothing_that_no_playbook_knows(story: Story, awx: FakeAwx) -> None:
    for name in PLAYBOOKS:
        template = awx.one("job_templates", f"Qwen3Guard {name}")
        asked = [q["variable"] for q in awx.survey(template["name"])] if template["survey_enabled"] else []
        # Options of roles have their names; what the playbooks themselves take is in one of these texts.
        texts = [ROOT / "playbooks" / f"{name}.yml", *(ROOT / "playbooks" / "vars").glob("*.yml")]
        texts += (ROOT / "playbooks" / "tasks").rglob("*.yml")
        text = "".join(path.read_text(encoding="utf-8") for path in texts)
        text += (ROOT / "roles" / "storage" / "defaults" / "main.yml").read_text(encoding="utf-8")
        assert not [variable for variable in asked if not re.search(rf"\b{variable}\b", text)], name
        assert not template.get("ask_variables_on_launch")


def test_the_workflow_leads_to_a_notice_either_way(story: Story, awx: FakeAwx) -> None:
    templates = {found["id"]: found["name"] for found in awx.objects["job_templates"].values()}
    nodes = {
        node["identifier"]: (
            templates[node["unified_job_template"]].removeprefix("Qwen3Guard "),
            awx.linked("workflow_job_template_nodes", node["identifier"], "success_nodes"),
            awx.linked("workflow_job_template_nodes", node["identifier"], "failure_nodes"),
        )
        for node in awx.objects["workflow_job_template_nodes"].values()
    }
    assert nodes == {
        "back up": ("backup", ["verify"], ["tell that the backup failed"]),
        "verify": ("verify", ["tell that it is verified"], ["tell that the verification failed"]),
        "tell that it is verified": ("notify", [], []),
        "tell that the backup failed": ("notify", [], []),
        "tell that the verification failed": ("notify", [], []),
    }
    told = awx.linked("workflow_job_templates", "Qwen3Guard backup, verify, notify", "notification_templates_error")
    assert told == ["Qwen3Guard duty", "Qwen3Guard hook"]


def test_no_secret_is_in_plain_nor_in_the_output(story: Story, awx: FakeAwx) -> None:
    credential = awx.one("credentials", "Qwen3Guard repository and keys")
    assert credential["inputs"]["rclone_config"] == story.site.secrets["rclone_config"]
    stored = awx.stored_in_plain()
    for name, value in story.site.secrets.items():
        assert value not in stored, name
        for run in (story.forecast, story.first, story.second):
            assert value not in run.output, name
    injectors = awx.one("credential_types", "Qwen3Guard repository and keys")["injectors"]
    assert injectors["file"] == {"template.rclone": "{{ rclone_config }}"}
    assert injectors["extra_vars"]["guardops_secret_rclone_file"] == "{{ tower.filename.rclone }}"


# -- when it runs


def occurrences(awx: FakeAwx, name: str, since: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
    """Instants of a schedule, in UTC, as AWX reads its rule."""
    rule = rrule.rrulestr(awx.one("schedules", f"Qwen3Guard {name}")["rrule"])
    found = rule.between(since, until, inc=True)
    return [instant.astimezone(dt.timezone.utc) for instant in found]


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.timezone.utc)  # type: ignore[misc,arg-type]


def test_schedules_keep_the_sites_clock_over_a_change_of_time(story: Story, awx: FakeAwx) -> None:
    # Berlin: clocks forward on 2026-03-29 (no 02:00 that day), back on 2026-10-25 (02:00 twice).
    spring = occurrences(awx, "patrol every day", utc(2026, 3, 27, 12), utc(2026, 3, 30, 12))
    # A time that the clock leaves out is read an hour earlier, by dateutil and so by AWX: once, all the same.
    assert spring == [utc(2026, 3, 28, 1), utc(2026, 3, 29, 0), utc(2026, 3, 30, 0)]
    autumn = occurrences(awx, "patrol every day", utc(2026, 10, 23, 12), utc(2026, 10, 26, 12))
    assert autumn == [utc(2026, 10, 24, 0), utc(2026, 10, 25, 0), utc(2026, 10, 26, 1)]
    skipped = occurrences(awx, "logs in full every day", utc(2026, 3, 28, 12), utc(2026, 3, 29, 12))
    assert skipped == [utc(2026, 3, 29, 0, 30)]
    fridays = occurrences(awx, "full verification every Friday", utc(2026, 3, 20), utc(2026, 4, 4))
    assert fridays == [utc(2026, 3, 20, 14), utc(2026, 3, 27, 14), utc(2026, 4, 3, 13)]
    zone = zoneinfo.ZoneInfo(ZONE)
    drills = [d.astimezone(zone) for d in occurrences(awx, "drill every month", utc(2026, 1, 1), utc(2026, 12, 31))]
    assert [drill.month for drill in drills] == list(range(1, 13))
    assert {(drill.weekday(), (drill.day - 1) // 7, drill.hour) for drill in drills} == {(2, 0, 10)}


@pytest.mark.parametrize("day", [(2026, 3, 29), (2026, 10, 25), (2026, 7, 1)])
def test_the_hourly_schedule_leaves_no_hour_out(story: Story, awx: FakeAwx, day: tuple[int, int, int]) -> None:
    start = utc(*day)
    hours = occurrences(awx, "logs every hour", start, start + dt.timedelta(days=1))
    assert [hour - start for hour in hours] == [dt.timedelta(hours=h, minutes=5) for h in range(24)]


def test_schedules_answer_their_surveys(story: Story, awx: FakeAwx) -> None:
    found = {schedule["name"].removeprefix("Qwen3Guard "): schedule for schedule in awx.objects["schedules"].values()}
    enabled = {name for name, schedule in found.items() if schedule["enabled"]}
    assert set(found) - enabled == {"logs in full every day"}
    assert found["logs every hour"]["extra_data"] == {"guardops_layers": ["logs"], "guardops_backup_type": "increment"}
    assert found["drill every month"]["extra_data"]["guardops_hosts"] == "spare-01"
    assert found["quick verification every day"]["extra_data"]["guardops_levels"] == ["decrypted"]
    assert found["retention every day"]["extra_data"] == {"guardops_prune_apply": "true"}
    workflow = awx.one("workflow_job_templates", "Qwen3Guard backup, verify, notify")
    assert found["full verification every Friday"]["unified_job_template"] == workflow["id"]


def test_each_host_looks_at_itself_by_the_unit_that_site_made(story: Story, awx: FakeAwx) -> None:
    for name in ("patrol", "site"):
        assert json.loads(awx.one("job_templates", f"Qwen3Guard {name}")["extra_vars"]) == {
            "guardops_patrol_unit": True
        }


def test_a_later_run_writes_new_secrets_drops_what_is_not_wanted_and_patrols_a_fleet(
    story: Story, awx: FakeAwx
) -> None:
    new = secrets.token_urlsafe(12)
    secrets_now = {"rclone_config": new, "kms_access_key_id": "AK1"}
    run = story.site.run(
        awx_secrets=secrets_now, awx_update_secrets=True, awx_drill_instance="", awx_prune=False,
        awx_patrol_instances=["all"], awx_patrol_host="watch", awx_report_host="watch",
    )  # fmt: skip
    assert run.rc == 0, run.output
    assert awx.one("credentials", "Qwen3Guard repository and keys")["inputs"] == secrets_now
    assert [method for method, path, _body in run.changes if "schedules" in path] == ["DELETE"] * 2
    assert not {"Qwen3Guard drill every month", "Qwen3Guard retention every day"} & set(awx.names("schedules"))
    # On a host: what the execution environment writes, and remembers, is gone with the job.
    assert json.loads(awx.one("job_templates", "Qwen3Guard patrol")["extra_vars"]) == {
        "guardops_hosts": "watch",
        "guardops_patrol_instances": ["all"],
    }
    assert json.loads(awx.one("job_templates", "Qwen3Guard report")["extra_vars"]) == {
        "guardops_hosts": "watch",
        "guardops_report_instances": ["all"],
    }


# -- the end, and what comes before the beginning


def test_absent_removes_what_the_role_made_and_nothing_else(story: Story, awx: FakeAwx) -> None:
    run = story.site.run(awx_state="absent")
    assert run.rc == 0, run.output
    left = {collection: awx.names(collection) for collection in awx.objects if collection != "project_updates"
            and collection != "workflow_job_template_nodes" and awx.names(collection)}  # fmt: skip
    assert left == {"organizations": ["Qwen3Guard", STRANGER], "credentials": ["Ansible Galaxy"]}
    assert not awx.objects["workflow_job_template_nodes"]
    again = story.site.run(awx_state="absent", awx_remove_organization=True)
    assert again.rc == 0, again.output
    assert [(method, path.split("/")[3]) for method, path, _body in again.changes] == [("DELETE", "organizations")]
    gone = story.site.run(awx_state="absent")
    assert (gone.rc, gone.changed, gone.changes) == (0, 0, []), gone.output


def test_without_awx_awx_it_is_told_how_to_get_it(awx: FakeAwx, tmp_path: pathlib.Path) -> None:
    run = Site(tmp_path, awx, [COLLECTIONS]).run()
    assert run.rc != 0
    assert "ansible-galaxy collection install awx.awx" in run.output


def test_settings_that_cannot_work_are_refused(awx: FakeAwx, tmp_path: pathlib.Path) -> None:
    run = Site(tmp_path, awx, [COLLECTIONS, other_collections()]).run(
        awx_time_zone="02:00 Shanghai",
        awx_project_local_path="guards",
        awx_schedules_off=["nightly"],
        awx_patrol_instances=["all"],
    )
    assert run.rc != 0
    told = " ".join(run.output.split())
    for words in (
        "awx_time_zone: expected a name such as Asia/Shanghai, found 02:00 Shanghai",
        "expected either awx_project_scm_url or awx_project_local_path, found both",
        "awx_schedules_off: expected names among logs every hour",
        "awx_patrol_host: expected a host of the inventory",
    ):
        assert words in told
    assert run.changes == []
