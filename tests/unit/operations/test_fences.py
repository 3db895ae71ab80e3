# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a takeover the old host writes nothing that anybody believes, at whichever moment it comes."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import fence, fences
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.overview import overview
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_fence import check_fence
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.patrol_findings import Findings
from support.engine import Engine
from support.two_hosts import LAYERS, Host

TOOK_OVER = "expected this host to be the one that writes, found that new took it over at 20"


@pytest.fixture(name="old")
def fixture_old(tmp_path: Path) -> Host:
    """The host that is lost, and has backed up its model."""
    host = Host(Engine(tmp_path), "old")
    host.backup_and_change("model")
    return host


@pytest.fixture(name="new")
def fixture_new(old: Host) -> Host:
    """The one that takes over."""
    return Host(old.engine, "new")


def refused(host: Host, layer: str = "model", *, dry: bool = False, words: str = TOOK_OVER) -> GuardError:
    """A backup on this host fails, and there are as many snapshots as before."""
    before = host.listed(layer)
    with pytest.raises(GuardError, match=words) as caught:
        host.backup(layer, dry=dry)
    assert host.listed(layer) == before
    return caught.value


def test_without_a_fence_manifests_are_as_they_were(old: Host, new: Host) -> None:
    new.backup("model")
    for manifest in old.place.rglob("manifest.json"):
        assert "fence" not in json.loads(manifest.read_text())
    assert overview(old.engine.repository)["fence"] is None
    assert not list(old.place.glob("fences*"))


def test_take_over_and_again(old: Host, new: Host) -> None:
    assert new.fence(dry=True).changed
    assert not new.state.exists()
    done = new.fence("the disk is gone")
    assert done.fence is not None
    assert (done.changed, done.previous, done.fence["host"], done.fence["ours"]) == (True, None, "new", True)
    assert done.fence["newest"] == {"model": old.listed()[0], "config": "", "logs": ""}
    assert (done.before, done.after.split(" since ")[0]) == (
        "guard-01 has no fence: any host may write into it\n", "new writes into guard-01",
    )  # fmt: skip
    again = new.fence()
    assert (again.changed, again.fence, again.previous) == (False, done.fence, done.fence)
    assert again.before == again.after
    assert len(list((old.place / "fences").iterdir())) == 1
    back = old.fence()
    assert back.fence is not None
    assert (back.changed, back.previous) == (True, {**done.fence, "ours": False})
    assert back.fence["id"] > done.fence["id"]
    refused(new, words="found that old took it over")


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_old_host_is_refused(old: Host, new: Host, layer: str, dry: bool) -> None:
    old.backup_and_change(layer)
    new.fence()
    before, commits = old.objects(), sorted((old.data / "config" / ".git").rglob("*"))
    error = refused(old, layer, dry=dry)
    assert "stop its timers" in error.hint
    with pytest.raises(GuardError, match=TOOK_OVER):
        old.prune(layer, dry=dry)
    assert old.prune(layer, apply=False).applied is False
    assert old.objects() == before
    assert sorted((old.data / "config" / ".git").rglob("*")) == commits, "it commits what nobody saves"
    new.change()
    assert new.backup(layer, dry=dry).changed
    if not dry:
        assert old.choose(layer=layer) == new.listed(layer)[-1]


def test_who_only_prunes_is_let_in(old: Host, new: Host) -> None:
    (first,) = old.listed()
    new.fence()
    new.change()
    new.backup()
    controller = Host(old.engine, "controller")
    with pytest.raises(GuardError, match=TOOK_OVER):
        controller.prune("model")
    assert controller.prune("model", only_prunes=True).removed == [first]
    assert first not in new.listed()


@pytest.mark.parametrize("moment", ["before index.gpg", "after index.gpg", "before manifest.json"])
@pytest.mark.parametrize("layer", LAYERS)
def test_taken_over_while_a_backup_runs(old: Host, new: Host, layer: str, moment: str) -> None:
    old.backup_and_change(layer)
    before = old.listed(layer)
    old.store.moment, old.store.act = moment, new.fence
    error = refused(old, layer)
    assert old.store.act is None
    assert ("was taken back" in error.hint) == (moment == "before manifest.json")
    if moment == "before manifest.json":
        of_layer = {name.split("/")[1] for name in old.objects() if name.startswith(f"{layer}/")}
        assert of_layer == set(before), "parts are left"
        assert not [name for name in old.objects() if name.startswith("records/") and f"/{before[-1]}." not in name]
        assert not list(old.state.rglob("*.journal"))
    assert new.choose(layer=layer) == before[-1]
    assert new.warnings == []
    new.change()
    assert new.backup(layer).changed
    assert new.choose(layer=layer) == new.listed(layer)[-1]
    refused(old, layer)


def test_taken_over_after_the_manifest(old: Host, new: Host) -> None:
    """The other host counts on the snapshot, and may be restoring it."""
    old.store.moment, old.store.act = "after manifest.json", new.fence
    made = old.backup().snapshot
    assert old.listed()[-1] == new.choose() == made
    assert f"{made} is the last snapshot of this host: instance guard-01: {TOOK_OVER}" in " ".join(old.warnings)
    old.change()
    refused(old)


def test_snapshot_that_came_while_a_host_took_over(old: Host, new: Host) -> None:
    (good,) = old.listed()
    new.store.moment, new.store.act = "before fence", old.backup
    assert new.fence().changed
    bad = old.listed()[-1]
    assert f"{bad} came while this host took the instance over, and is not believed" in " ".join(new.warnings)
    assert new.choose() == good
    new.change()
    new.backup()
    assert new.choose() == new.listed()[-1]


def test_snapshot_that_cannot_be_taken_back(old: Host, new: Host) -> None:
    before = old.listed()
    old.store.moment, old.store.act, old.store.keeps = "before manifest.json", new.fence, True
    with pytest.raises(GuardError, match="could not be taken back") as caught:
        old.backup()
    assert "the right to delete" in caught.value.hint
    assert len(old.listed()) == 2
    assert new.choose() == before[0]
    told = overview(new.engine.repository, "model", fences.held(new.engine.repository, str(new.state)))
    assert told["fence"]["ours"]
    assert "written by a host that was fenced off: new took" in told["snapshots"]["model"][1]["damaged"]
    assert told["newest"]["model"]["snapshot"] == before[0]


class KilledError(Exception):
    """The process is gone: nothing that would come after happens."""


def killed(host: Host, other: Host, layer: str) -> str:
    """A backup that ends just after its manifest was stored and another host took over; its snapshot."""

    def act() -> None:
        other.fence()
        host.store.moment, host.store.act = "after manifest.json", die

    def die() -> None:
        raise KilledError

    before = host.listed(layer)
    host.store.moment, host.store.act = "before manifest.json", act
    with pytest.raises(KilledError):
        host.backup(layer)
    return next(snapshot for snapshot in host.listed(layer) if snapshot not in before)


@pytest.mark.parametrize("layer", LAYERS)
def test_killed_before_the_last_look(old: Host, new: Host, layer: str) -> None:
    """The snapshot is whole, and nobody believes it who does not ask for it by its name."""
    old.backup(layer)
    good, log = old.listed(layer)[-1], old.logs.path("audit.log").read_bytes()
    old.change()
    bad = killed(old, new, layer)
    new.engine.repository.add_verdict(layer, good, "restored", {"ok": True})
    new.engine.repository.add_verdict(layer, bad, "restored", {"ok": True})
    for wanted in ("latest", "latest_verified", "2100-01-01T00:00:00Z"):
        new.warnings.clear()
        assert new.choose(wanted, layer) == good
        assert len([text for text in new.warnings if bad in text and "It is passed over" in text]) == 1
    new.warnings.clear()
    assert (new.choose(bad, layer), new.choose(str(int(bad[:6])), layer), new.warnings) == (bad, bad, [])
    told = overview(new.engine.repository)
    assert told["newest"][layer]["snapshot"] == good
    assert "fenced off" in told["snapshots"][layer][-1]["damaged"]

    new.logs.path("audit.log").write_bytes(log)  # as it came back, and goes on
    new.change()
    done = new.backup(layer)
    assert done.changed
    made = json.loads((new.place / layer / done.snapshot / "manifest.json").read_text())
    assert (made["type"], made["parent"]) == (("increment", good) if layer == "logs" else ("full", ""))
    assert made["fence"] == told["fence"]["id"]
    assert new.choose(layer=layer) == done.snapshot
    assert overview(new.engine.repository)["newest"][layer]["snapshot"] == done.snapshot
    # What the old one had is saved again when it may write again.
    old.fence()
    old.change()
    again = old.backup(layer)
    assert again.changed
    assert old.choose(layer=layer) == again.snapshot
    assert bad not in json.loads((old.place / layer / again.snapshot / "manifest.json").read_text())["parent"]


def test_retention_counts_no_snapshot_that_is_not_believed(old: Host, new: Host) -> None:
    (good,) = old.listed()
    bad = killed(old, new, "model")
    done = new.prune("model")
    assert {item["snapshot"]: item["reason"] for item in done.keep}[good].startswith("the newest that is whole")
    assert good in new.listed()
    assert bad in [item["snapshot"] for item in done.keep], "the highest number stays, whatever it is"


def test_taken_over_while_prune_runs(old: Host, new: Host) -> None:
    old.backup()
    old.change()
    old.backup()
    assert len(old.listed()) == 3
    old.store.moment, old.store.act = "before removing", new.fence
    done = old.prune("model")
    assert [text for text in done.failures if "new took it over" in text]
    assert not [name for name in old.listed() if not (old.place / "model" / name / "index.gpg").exists()]


def test_two_hosts_at_once_the_higher_wins_and_the_other_is_told(old: Host, new: Host) -> None:
    old.fence()
    other = Host(old.engine, "other")
    (first,) = (old.place / "fences").iterdir()
    ids = ["000002-00000000", "000002-ffffffff"]
    new.store.moment, new.store.act = "before fence", other.fence
    told = pytest.raises(GuardError, match="found that other did, with the higher fence 000002-ffffffff")
    with mock.patch(f"{fence.__name__}.new_snapshot_id", side_effect=ids), told:
        new.fence()
    assert sorted(path.stem for path in (old.place / "fences").iterdir()) == [first.stem, *ids]
    refused(new, words="found that other took it over")
    other.change()
    assert other.backup().changed
    assert new.fence().changed
    assert new.backup().snapshot


def test_fence_of_another_repository_is_not_taken(old: Host, new: Host, tmp_path: Path) -> None:
    made = new.fence().fence
    assert made is not None
    elsewhere = Host(Engine(tmp_path / "elsewhere"), "new")
    elsewhere.state = new.state
    elsewhere.backup()
    (elsewhere.place / "fences").mkdir()
    name = f"fences/{made['id']}.json"
    (elsewhere.place / name).write_bytes((new.place / name).read_bytes())
    refused(elsewhere)


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"format": 1}', b"\xff"])
def test_host_that_lost_its_state_is_refused_and_may_come_back(old: Host, new: Host, content: bytes | None) -> None:
    new.fence()
    (path,) = new.state.rglob("fence.json")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert "run the playbook fence" in refused(new).hint
    assert new.fence().changed
    assert new.backup().snapshot


def test_state_that_cannot_be_read_bars_nobody_from_looking(new: Host) -> None:
    new.fence()
    (path,) = new.state.rglob("fence.json")
    path.unlink()
    path.mkdir()
    assert fences.held(new.engine.repository, str(new.state)) == ""
    assert fences.held(new.engine.repository, str(path)) == ""


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "guardops.qwen3guard fence", "format": 9}', b"[" * 100_000])
def test_damaged_fence_counts_and_bars_no_restore(old: Host, new: Host, content: bytes) -> None:
    new.fence()
    (path,) = (old.place / "fences").iterdir()
    path.write_bytes(content)
    refused(old, words="that another one took it over .* which cannot be read")
    assert new.backup().snapshot
    new.warnings.clear()
    assert new.choose() == new.listed()[-1]
    assert "is not known" in " ".join(new.warnings)
    told = overview(new.engine.repository)["fence"]
    assert (told["host"], told["id"]) == ("", path.stem)
    assert told["damaged"]
    assert old.fence().changed
    assert old.backup().changed


def test_fence_that_is_gone(old: Host, new: Host) -> None:
    old.fence()
    new.fence()
    _first, second = sorted((old.place / "fences").iterdir())
    second.unlink()
    refused(new, words="expected the fence of this host, found no such object")
    assert new.fence().changed
    assert sorted(path.name[:6] for path in (old.place / "fences").iterdir()) == ["000001", "000003"]
    for path in (old.place / "fences").iterdir():
        path.unlink()
    assert new.backup().snapshot
    assert "is gone: nothing keeps another host from writing" in " ".join(new.warnings)


def test_fence_that_nobody_can_count_on_from(old: Host, new: Host) -> None:
    (old.place / "fences").mkdir()
    (old.place / "fences" / "999999999999-00000000.json").write_bytes(b"{}")
    with pytest.raises(GuardError, match="Somebody made it up: remove it"):
        new.fence()


def test_other_objects_are_no_fences(old: Host) -> None:
    (old.place / "fences" / "x").mkdir(parents=True)
    for name in ("notes.txt", "000001-00000000", "x/000001-00000000.json", ".000001-00000000.json"):
        (old.place / "fences" / name).write_bytes(b"{}")
    assert fences.listed(old.engine.repository) == []
    assert old.backup().changed


def test_look_that_fails_after_the_manifest_is_told(old: Host) -> None:
    def spoil() -> None:
        (old.place / "fences").write_bytes(b"")  # no directory: it cannot be listed

    old.store.moment, old.store.act = "after manifest.json", spoil
    assert old.backup().changed
    assert len(old.listed()) == 2
    assert "could not be looked up" in " ".join(old.warnings)


def test_patrol_of_a_host_that_was_fenced_off(old: Host, new: Host) -> None:
    def found(host: Host) -> list[tuple[str, str]]:
        findings = Findings("guard-01")
        check_fence(host.engine.repository, str(host.state), findings)
        return [(item.check, item.found.split(" at ")[0]) for item in findings.failures]

    assert found(old) == []
    new.fence()
    assert found(new) == []
    assert found(old) == [("fence", "one that was fenced off: new took it over")]
