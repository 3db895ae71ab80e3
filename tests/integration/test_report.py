# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module and the playbook report on real backups, and the page in a real browser (headless Chromium)."""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil
import typing as t

import pytest
from playwright.sync_api import Browser, sync_playwright
from sample_instance.chained import ChainedWriter

from support.fleet import FAULTS, make_instance
from support.forked_modules import run_forked
from support.markup import Markup
from support.modules import ModuleRun, run_module
from support.playbooks import HOST, Playbooks
from support.trial import INSTANCE, Trial

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REPAIR = "chromium is missing (Debian: apt install chromium)"
STRICT = os.environ.get("CI", "").lower() in ("true", "1")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """All three layers backed up and verified, and two increments of the logs."""
    place = tmp_path_factory.mktemp("report")
    trial = Trial(place, place / "repository")
    data = place / "data"
    for layer, name in (("model", "config.json"), ("config", "web.json")):
        (data / layer).mkdir(parents=True)
        (data / layer / name).write_text('{"model_type": "qwen3"}\n')
    start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=50)
    writer = ChainedWriter(data / "logs" / "audit.log", start=start)
    for _increment in range(2):
        writer.append(40, step=6)
        trial.run("backup", layer="logs", path=str(data / "logs")).succeeded()
    for layer in ("model", "config"):
        trial.run("backup", layer=layer, path=str(data / layer)).succeeded()
    for layer in ("model", "config", "logs"):
        trial.run("verify", layer=layer, level="restored").succeeded()
    return trial


def options_of(trial: Trial, **more: t.Any) -> dict[str, t.Any]:
    arguments = {name: value for name, value in trial.options.items() if name not in ("key", "workers")}
    return {name: value for name, value in {**arguments, **more}.items() if value is not None}


def report(trial: Trial, path: pathlib.Path, *, check: bool = False, **more: t.Any) -> ModuleRun:
    return run_forked("report", options_of(trial, path=str(path), **more), trial.environment(), check=check)


def test_page_of_real_backups(trial: Trial, tmp_path: pathlib.Path) -> None:
    before = set(trial.objects())
    path = tmp_path / "report.html"
    planned = report(trial, path, check=True).succeeded()
    assert planned["changed"]
    assert not path.exists()
    done = report(trial, path).succeeded()
    assert (done["ok"], done["failures"]) == (True, [])
    assert done["counts"] == {"instances": 1, "failing": 0, "detailed": 1, "failures": 0, "warnings": 0}
    assert done["bytes"] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    markup = Markup(path.read_text(encoding="utf-8"))
    captions = [element.text for element in markup.all("caption")]
    assert [caption.partition(" on ")[0] for caption in captions] == [
        "model 1 snapshots", "config 1 snapshots", "logs 2 snapshots",
    ]  # fmt: skip
    assert all("verifications: 1 passed, 0 failed" in caption for caption in captions)
    assert set(trial.objects()) == before  # it only looks
    assert list(tmp_path.iterdir()) == [path]


def test_diff_and_what_is_refused(trial: Trial, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("the page before\n")
    options = options_of(trial, path=str(path), days=7)
    done = run_module("report", options, check=True, diff=True, env=trial.environment()).succeeded()
    assert done["diff"]["before"] == "the page before\n"
    assert "Snapshots and verifications, 7 days" in done["diff"]["after"]
    assert path.read_text() == "the page before\n"
    failed = report(trial, tmp_path / "nowhere" / "report.html")
    assert failed.failed
    assert failed.result["thing"] == "option path"
    assert report(trial, path, instances=["all"]).failed  # and an instance
    failed = report(trial, path, mode="u=rw")
    assert failed.result["thing"] == "option mode"


@pytest.mark.parametrize("told", ["0644", "644", 0o644])
def test_page_for_a_web_server(trial: Trial, tmp_path: pathlib.Path, told: str | int) -> None:
    path = tmp_path / "report.html"
    path.write_text("the page before\n")
    path.chmod(0o600)
    report(trial, path, mode=told).succeeded()
    assert path.stat().st_mode & 0o7777 == 0o644
    report(trial, path).succeeded()
    assert path.stat().st_mode & 0o7777 == 0o600


def test_a_part_that_is_gone_is_the_first_thing_to_see(trial: Trial, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(trial.repository, copy)
    first = sorted((copy / INSTANCE / "logs").iterdir())[0]
    next(first.glob("part-*")).unlink()
    done = report(trial, tmp_path / "report.html", instance=None, instances=["all"], repository=str(copy)).succeeded()
    assert done["ok"] is False
    assert [(item["check"], item["thing"]) for item in done["failures"]] == [("damaged", f"logs, {first.name}")]
    markup = Markup((tmp_path / "report.html").read_text(encoding="utf-8"))
    (item,) = markup.all("li", class_="f")
    assert "With it 1 that stand on it cannot be restored." in item.text


def test_the_playbook_fetches_the_page(trial: Trial, tmp_path: pathlib.Path) -> None:
    variables = {
        "guardops_instance": INSTANCE, "guardops_repository": trial.repository,
        "guardops_state_dir": str(tmp_path / "state"), "guardops_patrol_limits": {"logs_hours": 5, "free_percent": 1},
    }  # fmt: skip
    playbooks = Playbooks(tmp_path / "run", variables)
    page = playbooks.reports / f"{HOST}-report.html"
    assert playbooks.run("report", "--check").succeeded()[""]["changed"]
    assert not page.exists()
    told = playbooks.run("report", guardops_report_instances=["all"], guardops_report_days=30).succeeded()[""]
    assert told["counts"]["instances"] == 1
    assert "Snapshots and verifications, 30 days" in page.read_text(encoding="utf-8")
    assert (tmp_path / "state" / "report.html").read_bytes() == page.read_bytes()


@pytest.fixture(scope="module")
def browser() -> t.Iterator[Browser]:
    if not CHROMIUM:
        (pytest.fail if STRICT else pytest.skip)(REPAIR)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """one.html, and fleet.html with every fault."""
    place = tmp_path_factory.mktemp("pages")
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    for number, fault in enumerate(["", *FAULTS]):
        make_instance(place / "repository", f"{'guard-with-a-rather-long-name-' * 2}{number}", now, 2, fault)
    report(trial, place / "one.html").succeeded()
    fleet = {"instance": None, "instances": ["all"], "repository": str(place / "repository")}
    report(trial, place / "fleet.html", **fleet).succeeded()
    return place


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "fleet"])
def test_the_page_in_a_browser(
    browser: Browser, pages: pathlib.Path, name: str, scheme: t.Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: complaints.append(said.text))
    page.goto((pages / f"{name}.html").as_uri())
    assert asked == [(pages / f"{name}.html").as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert dark == (scheme == "dark")
    if name == "fleet":
        # A table at any width, for those who do not see it.
        assert page.get_by_role("columnheader", name="All restored").count() == 1
        link = page.locator(".fleet a").first
        target = link.get_attribute("href") or ""
        link.click()
        assert page.url.endswith(target)
        assert page.locator(target).is_visible()
    context.close()
