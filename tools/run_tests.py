# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the tiers of the tests, cheap ones first, all of them even when one fails; end with a table.

    tools/test                       every tier
    tools/test unit                  one tier
    tools/test ruff mypy             some
    tools/test engines               the gateway against vLLM on a CPU; only when named: 3.5 GB
    tools/test unit -k faulty -x     the rest goes to pytest (or to ansible-test, for the tier sanity)
    tools/test molecule storage      one scenario of Molecule's

A tier that cannot run says why. With CI=true in the environment that is a failure: there, everything must run.
"""

from __future__ import annotations

import concurrent.futures
import glob
import os
import subprocess
import sys
import time
import typing as t
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, ".venv", "bin")
REPORTS = os.path.join(ROOT, ".cache", "test")
sys.path.insert(0, os.path.join(ROOT, "tests"))  # no installed package

from support.checkout import COLLECTIONS, link_collection

PYTEST_RAN_NOTHING = 5
PROGRAMS_MISSING = 3  # exit code of tools/packages


class Result(t.NamedTuple):
    """How a tier ended: ``verdict`` is passed, FAILED or not run."""

    verdict: str
    note: str = ""
    counts: dict[str, int] = {}


class Tier(t.NamedTuple):
    name: str
    run: t.Callable[[list[str]], Result]
    takes_arguments: bool = False


def command(*argv: str, log: t.IO[bytes] | None = None) -> int:
    """Run a program in the checkout; what it prints goes straight to the terminal, or to ``log``."""
    environment = dict(
        os.environ,
        PATH=BIN + os.pathsep + os.environ["PATH"],
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),  # ansible-lint checks the playbooks' syntax, which needs the modules
    )
    output = {} if log is None else {"stdout": log, "stderr": subprocess.STDOUT}
    return subprocess.run(argv, cwd=ROOT, env=environment, check=False, stdin=subprocess.DEVNULL, **output).returncode


def by_exit_code(rc: int) -> Result:
    return Result("passed") if rc == 0 else Result("FAILED", f"exit code {rc}")


def ruff(_arguments: list[str]) -> Result:
    check = command("ruff", "check", "--quiet", ".")
    layout = command("ruff", "format", "--quiet", "--diff", ".")
    return by_exit_code(check or layout)


def mypy(_arguments: list[str]) -> Result:
    return by_exit_code(command("mypy"))


def ansible_lint(_arguments: list[str]) -> Result:
    return by_exit_code(command("ansible-lint", "--nocolor", "-q"))


def docs(_arguments: list[str]) -> Result:
    """What modules, roles and lookups say of themselves: right references, and pages that can be made of it."""
    lint = command(
        "antsibull-docs",
        "lint-collection-docs",
        "--plugin-docs",
        "--validate-collection-refs=dependent",  # our own names and those of ansible.builtin
        "--skip-rstcheck",  # Sphinx, below, is stricter
        str(COLLECTIONS / "ansible_collections" / "guardops" / "qwen3guard"),
    )
    return by_exit_code(lint or command(".venv/bin/python", "tools/reference.py"))


def importer(_arguments: list[str]) -> Result:
    return by_exit_code(command("tools/importer"))


def sanity(arguments: list[str]) -> Result:
    return by_exit_code(command("tools/sanity", *arguments))


def pytest_tier(folder: str, workers: int) -> t.Callable[[list[str]], Result]:
    """A tier of pytest's. Two workers by default: ``-n 0`` among the arguments makes it one process again."""

    def run(arguments: list[str]) -> Result:
        os.makedirs(REPORTS, exist_ok=True)
        report = os.path.join(REPORTS, f"{folder}.xml")
        if os.path.exists(report):
            os.unlink(report)
        where = [] if any(a.startswith("tests/") for a in arguments) else [f"tests/{folder}"]
        rc = command("pytest", "-n", str(workers), f"--junit-xml={report}", *arguments, *where)
        if rc == PYTEST_RAN_NOTHING:
            return Result("not run", "pytest found no test")
        counts = read_counts(report) if os.path.exists(report) else {}
        note = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
        return by_exit_code(rc)._replace(counts=counts, **({"note": note} if note else {}))

    return run


def unit(arguments: list[str]) -> Result:
    named = [argument for argument in arguments if argument.startswith("tests/")]
    if not named and command("tools/promtool"):
        print("The tests of the alerting rules cannot run: see above.", flush=True)
    return pytest_tier("unit", 2)(arguments)


def integration(arguments: list[str]) -> Result:
    rc = command("tools/packages")
    if rc:
        why = "programs are missing, see above" if rc == PROGRAMS_MISSING else "tools/packages failed, see above"
        return Result("not run", why)
    named = [argument for argument in arguments if argument.startswith("tests/")]
    if not named and command("tools/own-venv", "engine-transformers"):
        print("The tests that need a model engine cannot run: see above.", flush=True)
    return pytest_tier("integration", 2)(arguments)


def engines(arguments: list[str]) -> Result:
    """The contract tests again, against an engine that is too large for every day."""
    if command("tools/own-venv", "engine-vllm"):
        return Result("not run", "there is no vLLM, see above")
    os.environ["GUARDOPS_ENGINE"] = "vllm"
    try:
        return pytest_tier("engines", 0)([*arguments, "tests/integration/test_gateway_engine.py"])
    finally:
        del os.environ["GUARDOPS_ENGINE"]


AT_ONCE = 3  # each waits for its hosts about a third of the time: so two cores are busy
LONG_SCENARIOS = ("recovery", "gpu_host", "guard", "patrol", "runtime", "log_rotation")


def molecule(arguments: list[str]) -> Result:
    """The scenarios, all or the named ones; each on real systemd hosts of its own, three scenarios at a time."""
    rc = command("tools/testbed", "prepare")
    if rc:
        why = "this machine cannot have the hosts" if rc == PROGRAMS_MISSING else "tools/testbed failed"
        return Result("not run", f"{why}, see above")
    command("tools/testbed", "clean")
    found = (os.path.dirname(path) for path in glob.glob("*/molecule.yml", root_dir=os.path.join(ROOT, "molecule")))
    # The long ones first, so that none of them runs alone at the end.
    names = arguments or sorted(found, key=lambda name: (*(name != long for long in LONG_SCENARIOS), name))
    os.environ.setdefault("NO_COLOR", "1")
    os.makedirs(REPORTS, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(AT_ONCE, len(names))) as pool:
        results = list(pool.map(scenario, names))
    command("tools/testbed", "clean")  # what a scenario that failed on its way left
    failed = [name for name, (rc, _seconds) in zip(names, results) if rc]
    times = ", ".join(f"{name} {seconds:.0f} s" for name, (_rc, seconds) in zip(names, results))
    verdict = Result("FAILED", f"failed: {', '.join(failed)}") if failed else Result("passed", times)
    return verdict._replace(counts={"passed": len(names) - len(failed), "failed": len(failed)})


def scenario(name: str) -> tuple[int, float]:
    """One scenario: its exit code and seconds. Several run at once, so what it says is printed when it has ended."""
    print(f"scenario {name} ...", flush=True)
    started = time.monotonic()
    path = os.path.join(REPORTS, f"molecule-{name}.log")
    with open(path, "w+b") as log:
        rc = command("tools/testbed", "exec", "molecule", "test", "--scenario-name", name, log=log)
        log.seek(0)
        text = log.read().decode(errors="replace")
    seconds = time.monotonic() - started
    print(f"\n--- scenario {name}: exit code {rc} after {seconds:.0f} s\n{text}", flush=True)
    return rc, seconds


def read_counts(report: str) -> dict[str, int]:
    """Passed, failed and skipped from pytest's report."""
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it a moment ago
        for word in total:
            total[word] += int(suite.get(word, "0"))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    return {"passed": passed, "failed": failed, "skipped": total["skipped"]}


TIERS = (
    Tier("ruff", ruff),
    Tier("mypy", mypy),
    Tier("ansible-lint", ansible_lint),
    Tier("docs", docs),
    Tier("importer", importer),
    Tier("sanity", sanity, takes_arguments=True),
    Tier("unit", unit, takes_arguments=True),
    Tier("integration", integration, takes_arguments=True),
    Tier("molecule", molecule, takes_arguments=True),
)
OPT_IN = (Tier("engines", engines, takes_arguments=True),)  # only when named


def choose(arguments: list[str]) -> tuple[list[Tier], list[str]]:
    """The tiers named first on the command line, all when none is, and what follows them."""
    known = {tier.name: tier for tier in TIERS + OPT_IN}
    chosen: list[Tier] = []
    rest = list(arguments)
    while rest and rest[0] in known:
        chosen.append(known[rest.pop(0)])
    if rest and not all(tier.takes_arguments for tier in chosen or TIERS):
        sys.exit(f"tools/test: name a tier that takes {rest[0]!r}; the tiers are: {', '.join(known)}")
    return chosen or list(TIERS), rest


def main() -> int:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    tiers, rest = choose(arguments)
    link_collection()
    strict = os.environ.get("CI", "").lower() in ("true", "1")
    rows: list[tuple[str, Result, float]] = []
    for tier in tiers:
        print(f"\n=== {tier.name} ===", flush=True)
        started = time.monotonic()
        result = tier.run(rest)
        seconds = time.monotonic() - started
        rows.append((tier.name, result, seconds))
        print(f"--- {tier.name}: {result.verdict}{f' ({result.note})' if result.note else ''}", flush=True)
    return summary(rows, strict)


def summary(rows: list[tuple[str, Result, float]], strict: bool) -> int:
    """Print the table; the exit code is 1 when anything failed, or did not run where all must."""
    print(f"\n{'tier':<14}{'result':<10}{'seconds':>8}  note")
    for name, result, seconds in rows:
        print(f"{name:<14}{result.verdict:<10}{seconds:>8.1f}  {result.note}")
    verdicts = [result.verdict for _name, result, _seconds in rows]
    missing = strict and "not run" in verdicts
    if missing:
        print("\nCI=true: a tier that did not run is a failure.")
    totals = {word: sum(r.counts.get(word, 0) for _n, r, _s in rows) for word in ("passed", "failed", "skipped")}
    if any(totals.values()):
        print("\n" + ", ".join(f"{number} {word}" for word, number in totals.items()))
    return int("FAILED" in verdicts or missing)


if __name__ == "__main__":
    sys.exit(main())
