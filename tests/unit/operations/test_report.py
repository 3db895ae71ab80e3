# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report: what it finds in a repository, and a page that nothing from a repository can break."""

from __future__ import annotations

import datetime
import json
import re
import typing as t
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.format.drill import Drill, Phase, object_name
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import report, report_page, report_parts
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings, Limits
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.store import DirectoryStore
from support.fleet import make_instance, verdict
from support.made_up import NOW, MadeUp
from support.markup import Markup

NOW_TIME = datetime.datetime.fromtimestamp(NOW, tz=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
EVIL = (
    "</p></td></style><script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(1)>\u202egnp\x00\x1b"
)
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "h3", "p", "a",
    "b", "br", "div", "i", "li", "ol", "small", "span", "strong", "table", "caption", "thead", "tbody", "tfoot", "tr",
    "td", "th", "time", "ul", "svg", "g", "line", "rect", "text",
}  # fmt: skip


def collect(root: Path, instances: list[str] | None = None, **more: t.Any) -> report.Report:
    options = report.Options(**{
        "instance": "guard-01", "instances": instances, "limits": Limits(), "days": 90, "details": 25, **more,
    })  # fmt: skip
    return report.collect([DirectoryStore(str(root))], options, NOW_TIME)


def checked(found: report.Report) -> Markup:
    """The page, of which everything that is never allowed is asserted."""
    page = report_page.page(found)
    assert "\u202e" not in page
    assert "\x1b" not in page
    markup = Markup(page)
    assert {element.name for element in markup.elements} <= TAGS
    allowed = {"href", "class", "id", "scope", "role", "title", "datetime", "lang", "charset", "name", "content"}
    allowed |= {"http-equiv", "aria-label", "aria-hidden", "x", "y", "x1", "x2", "y1", "y2", "width", "height"}
    assert {name for name, _value in markup.values()} <= allowed
    assert all(re.fullmatch(r"#i\d+", value) for name, value in markup.values() if name == "href")
    names = [value for name, value in markup.values() if name == "id"]
    assert len(names) == len(set(names))
    assert {value[1:] for name, value in markup.values() if name == "href"} <= set(names)
    for style in markup.all("style"):
        assert not re.search(r"url\(|@import|expression|https?:", style.text)
    metas = [element.attributes for element in markup.all("meta")]
    (policy,) = [meta for meta in metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")
    return markup


def opened(found: report.Report) -> set[tuple[str, str]]:
    return {(item.check, item.thing) for guard in found.guards for item in guard.findings.failures}


def odd(found: report.Report) -> set[tuple[str, str]]:
    return {(item.check, item.thing) for guard in found.guards for item in guard.findings.warnings}


def put_verdict(made: MadeUp, name: str, level: str, days: float, ok: bool = True, **more: t.Any) -> None:
    told = {**verdict(name, level, NOW_TIME - days * DAY, ok), **more}
    made.write(made.verdict_name(name), json.dumps({"verdicts": {level: told}}).encode())


def put_drill(root: Path, days: float, seconds: float | None, **more: t.Any) -> Drill:
    started = (NOW_TIME - days * DAY).strftime("%Y-%m-%dT%H:%M:%SZ")
    drill = Drill(**{
        "kind": "drill", "instance": "guard-01", "host": "spare", "started": started, "ended": started,
        "phases": [Phase("configuration", 60.0, True), Phase("weights", 100.0, True), Phase("history", 40.0, True)],
        "recovery_point": None, "recovery_time_seconds": seconds, "total_seconds": 200.0, "budget_seconds": 300.0,
        "ok": True, **more,
    })  # fmt: skip
    path = root / "guard-01" / object_name(started)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drill.to_bytes())
    return drill


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An instance about which nothing is wrong."""
    place = tmp_path / "repository"
    for layer in ("model", "config"):
        made = MadeUp(place, layer)
        put_verdict(made, made.add(10, size=1000), "restored", 1)
    logs = MadeUp(place)
    last = [logs.chain(days, 2, records=5) for days in (40.5, 39.5, 2.5, 1.5, 0.5)][-1][-1]
    put_verdict(logs, last, "restored", 0.1)
    put_drill(place, 5, 160.0)
    return place


def test_structure_of_the_page_of_one_instance(root: Path) -> None:
    found = collect(root)
    assert (opened(found), odd(found)) == (set(), set())
    markup = checked(found)
    assert [(element.name, element.text) for element in markup.elements if element.name in ("h1", "h2", "h3")] == [
        ("h1", "Backups of guard-01"), ("h2", "Open"), ("h2", "guard-01"), ("h3", "Recovery points"),
        ("h3", "Snapshots and verifications, 90 days"), ("h3", "Drills and recoveries"),
        ("h3", "Size in the store, by the month in which it was made"), ("h2", "What this page does not say"),
    ]  # fmt: skip
    assert [table.attributes["class"] for table in markup.all("table")] == ["points", "cal", "cal", "cal", "sizes"]
    # Fourteen weeks and their heads, four layers and months and their heads.
    assert len(markup.all("tr")) == 3 * (14 + 1) + (3 + 1) + (2 + 1 + 1)
    captions = [element.text for element in markup.all("caption")]
    assert captions[2] == "logs 15 snapshots on 5 of 90 days; verifications: 1 passed, 0 failed"
    assert "2026-11-23: 3 snapshots, 1 verifications passed" in {value for name, value in markup.values()}
    assert "Longest gap between snapshots of the logs in 90 days: 37 days, from 2026-10-15 02:00" in "".join(
        element.text for element in markup.all("p")
    )


def test_phases_of_a_drill_against_its_budget(root: Path) -> None:
    put_drill(root, 2, 400.0, ok=False, failures=["too slow: weights"], phases=[Phase("weights", 400.0, True)])
    found = collect(root)
    assert opened(found) == {("drill", "newest drill")}
    markup = checked(found)
    older, newer = markup.all("svg", class_="bar")
    assert older.attributes["aria-label"] == "answered after 2 min 40 s, 5 min allowed"
    # On the scale of the slowest (400 s and a little): two phases that count, and one that came after the answer.
    scale = 408.0
    widths = [float(rect.attributes["width"][:-1]) for rect in markup.all("rect", height="20")]
    assert widths == [round(100 * seconds / scale, 2) for seconds in (60, 100, 40, 400)]
    assert [group.attributes["class"] for group in markup.all("g")] == ["p0", "p1", "p2 after", "p0"]
    assert {line.attributes["x1"] for line in markup.all("line")} == {f"{100 * 300 / scale:.2f}%"}
    assert newer.attributes["aria-label"] == "answered after 6 min 40 s, 5 min allowed"
    assert "too slow: weights" in {element.text for element in markup.all("p")}


def test_sizes_are_those_of_the_store(root: Path) -> None:
    details = collect(root).guards[0].details
    assert details is not None
    stored = sum(
        path.stat().st_size for layer in ("model", "config", "logs", "records")
        for path in (root / "guard-01" / layer).rglob("*") if path.is_file()
    )  # fmt: skip
    assert details.stored_bytes == stored
    assert set(details.months) == {"2026-10", "2026-11"}
    assert set(details.months["2026-10"]) == {"logs"}


def test_a_broken_verdict_is_a_failure_and_an_older_one_a_warning(root: Path) -> None:
    logs = sorted(path.name for path in (root / "guard-01" / "logs").iterdir())
    made = MadeUp(root)
    put_verdict(made, logs[3], "restored", 30, ok=False)
    found = collect(root)
    assert opened(found) == set()
    assert odd(found) == {("old_verdict", f"logs, restored, {logs[3]}")}
    put_verdict(made, logs[-1], "decrypted", 0.1, ok=False)
    put_verdict(made, logs[-2], "restored", 0.2)
    found = collect(root)
    assert opened(found) == {("verdict", "logs, decrypted")}
    markup = checked(found)
    (item,) = markup.all("li", class_="f")
    assert "found another" in item.text
    assert "1 to mend" in markup.all("p", class_="verdict bad")[0].text
    assert found.ok is False


def test_a_sample_is_no_restore(root: Path) -> None:
    made = MadeUp(root, "model")
    (name,) = (path.name for path in (root / "guard-01" / "model").iterdir())
    put_verdict(made, name, "restored", 0.1, sample_bytes=1000)
    found = collect(root)
    assert opened(found) == {("verification", "model, proven")}
    (table,) = checked(found).all("table", class_="points")
    assert re.search(r"model.*2 hours ago.*never", table.text.partition("config")[0], re.DOTALL), table.text
    before = verdict(name, "restored", NOW_TIME - DAY, ok=False)
    put_verdict(made, name, "restored", 0.1, sample_bytes=1000, whole=before)
    logs = sorted(path.name for path in (root / "guard-01" / "logs").iterdir())
    put_verdict(MadeUp(root), logs[3], "restored", 1, sample_bytes=1000, whole=before)
    found = collect(root)
    assert opened(found) == {("verdict", "model, restored")}
    assert odd(found) == {("old_verdict", f"logs, restored, {logs[3]}")}


def test_damaged_snapshots_what_stands_on_them_and_leftovers(root: Path) -> None:
    logs = sorted(path.name for path in (root / "guard-01" / "logs").iterdir())
    (root / "guard-01" / "logs" / logs[0] / "part-00000.gpg").write_bytes(b"short")
    (root / "guard-01" / "logs" / logs[5] / "manifest.json").unlink()
    found = collect(root)
    assert opened(found) == {("damaged", f"logs, {logs[0]}")}
    (failure,) = found.guards[0].findings.failures
    assert "With it 2 that stand on it cannot be restored." in failure.found
    assert odd(found) == {("incomplete", "logs")}
    titles = [value for name, value in checked(found).values() if name == "title" and "damaged" in value]
    assert titles == ["2026-10-14: 3 snapshots, 3 damaged"]


def test_a_layer_that_is_stale_and_one_that_is_not_there(tmp_path: Path) -> None:
    MadeUp(tmp_path).add(3, records=4)
    MadeUp(tmp_path, "model").add(3)
    found = collect(tmp_path)
    assert {("snapshot", "logs, age"), ("snapshot", "config"), ("verification", "logs, quick")} <= opened(found)
    markup = checked(found)
    assert [row.text for row in markup.all("td") if row.text == "none"] == ["none"]


def test_nothing_from_a_repository_breaks_the_page(root: Path) -> None:
    made = MadeUp(root)
    logs = sorted(path.name for path in (root / "guard-01" / "logs").iterdir())
    put_verdict(made, logs[-1], "decrypted", 0.1, ok=False, failures=[EVIL], snapshot=EVIL, verified=EVIL)
    put_verdict(made, logs[-2], "restored", 0.1, verified="0001-01-01T00:00:00+14:00")
    put_verdict(made, logs[-3], EVIL, 0.1, ok=False)
    put_verdict(made, logs[-4], "stored", 0.1, ok=[], failures={EVIL: 1}, verified={"a": 1})
    put_drill(root, 1, None, ok=False, host=EVIL, failures=[EVIL], phases=[Phase(EVIL, 1e308, False, EVIL)] * 60,
              total_seconds=1e308, budget_seconds=1e308)  # fmt: skip
    put_drill(root, 2, 0.0, phases=[], total_seconds=0.0, budget_seconds=0.0)
    (root / "guard-01" / "drills" / "20261101T000000Z.json").write_text(json.dumps({"format": EVIL}))
    manifest = root / "guard-01" / "logs" / logs[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"host": "guard-host"', f'"host": {json.dumps(EVIL)}'))
    manifest = root / "guard-01" / "logs" / logs[1] / "manifest.json"
    manifest.write_text(json.dumps({"kind": EVIL}))
    (root / "<script>alert(1)<").mkdir()
    markup = checked(collect(root))
    # What it says is there to be read, and is text.
    assert [item for item in markup.all("li", class_="f") if "<script>alert(1)</script>" in item.text]
    checked(collect(root, ["all"]))


def test_hostile_names_of_instances_and_repositories_are_text(root: Path) -> None:
    found = collect(root)
    found.repositories.append(EVIL)
    found.host = EVIL
    findings = Findings(EVIL)
    findings.fail(EVIL, EVIL, EVIL, EVIL, EVIL)
    found.guards.append(report.Guard(EVIL, EVIL, findings, found.guards[0].details))
    found.whole.warn(EVIL, "x" * 10_000, "y", "z" * 10_000)
    markup = checked(found)
    assert "https://evil.example/x" in markup.all("li", class_="f")[0].text
    assert max(len(element.text) for element in markup.all("strong")) < 600


@pytest.mark.parametrize("details", [0, 3])
def test_a_fleet_is_one_table_that_links_to_closer_looks(tmp_path: Path, details: int) -> None:
    for number, fault in enumerate(("", "old logs", "failed verdict", "", "no drill")):
        make_instance(tmp_path, f"guard-{number}", NOW_TIME, 3, fault)
    found = collect(tmp_path, ["all"], details=details)
    markup = checked(found)
    (fleet,) = markup.all("table", class_="fleet")
    assert len(markup.all("tr", role="row")) == 6
    assert "All restored" in fleet.text
    sections = {element.attributes["id"] for element in markup.all("section")}
    assert len(sections) == details
    assert {element.attributes["href"][1:] for element in markup.all("a")} == sections
    left_out = [item.text for item in markup.all("li") if "were left out" in item.text]
    assert f"{5 - details} were left out" in left_out[0]
    failing = [guard.name for guard in found.guards if guard.findings.failures]
    assert {"guard-1", "guard-2", "guard-4"} <= set(failing)
    assert [guard.name for guard in found.guards][: len(failing)] == failing


def test_the_page_of_a_thousand_instances_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = collect(root)
    (guard,) = found.guards
    for number in range(999):
        findings = Findings(f"guard-{number}")
        findings.facts = guard.findings.facts
        for count in range(50):
            findings.fail("snapshot", f"logs {count}", "one that is younger", "x" * 1000, "y" * 1000)
        found.guards.append(report.Guard(findings.instance, guard.repository, findings, guard.details))
    monkeypatch.setattr(report_page, "LARGEST", 300_000)
    page = report_page.page(found)
    assert len(page) < 2_000_000
    markup = checked(found)
    assert len(markup.all("tr", role="row")) == 1001
    assert 0 < len(markup.all("section")) < 40
    assert len(markup.all("li", class_="f")) == 200
    texts = [item.text for item in markup.all("li")]
    assert "and 48950 more failures of other instances" in [text.strip() for text in texts]
    assert [text for text in texts if text.strip().startswith("guard-0: and 40 more failures")]
    assert sum("were left out" in text for text in texts) == 1


@pytest.mark.parametrize(("more", "word"), [
    ({"days": 0}, "days"), ({"days": 367}, "days"), ({"details": -1}, "details"), ({"instance": "../x"}, "instance"),
    ({"instances": ["a/b"]}, "instance"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(root: Path, more: dict[str, t.Any], word: str) -> None:
    with pytest.raises(GuardError, match=word):
        collect(root, **more)


def test_instances_that_are_not_there_and_repositories_that_are_not(root: Path, tmp_path: Path) -> None:
    assert opened(collect(root, ["guard-01", "guard-99"])) == {("instance", "repository")}
    found = collect(tmp_path / "nothing", ["all"])
    assert [item.check for item in found.whole.failures] == ["repository"]
    checked(found)
    (tmp_path / "empty").mkdir()
    found = collect(tmp_path / "empty", ["all"])
    assert [item.check for item in found.whole.failures] == ["instance"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (250 << 30, "250 GiB"),
                                             (5 << 50, "5120 TiB")])  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert report_parts.told_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.2 s"), (59.4, "59 s"), (60, "1 min"), (174.0, "2 min 54 s"),
                                               (3600.0, "1 h"), (3725, "1 h 2 min"), (59.9, "1 min")])  # fmt: skip
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert report_parts.told_seconds(seconds) == text
