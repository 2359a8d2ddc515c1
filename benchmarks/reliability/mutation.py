"""Count how many small faults in losses, metrics, sampling and geometry the tests notice.

    python benchmarks/reliability/mutation.py --sample 400

mutmut writes the mutants (folder mutants/) and runs the tests that reach each of them
(`[tool.mutmut]` in pyproject.toml). A seeded sample is tested. A stopped run can be resumed.
Survivors are printed with their change. Mutants that behave like the original are listed in
equivalent_mutants.yaml with the reason, and do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
KILLED = (1, 3)
TIMEOUTS = (-24, 24, 36, 152, 255)
GENERATE = "crossvox.losses.ramps*"
"""A few mutants. To test them, mutmut first writes all mutants."""


def measure(sample: int, seed: int = 0, jobs: int = 1) -> dict[str, Any]:
    """Test `sample` mutants drawn with `seed`; those tested before are not tested again.

    Returns:
        Figures, and the changes that survived or are equivalent.
    """
    _mutmut(jobs, GENERATE)
    codes = _exit_codes()
    chosen = random.Random(seed).sample(sorted(codes), min(sample, len(codes)))
    if untested := [name for name in chosen if codes[name] is None]:
        _mutmut(jobs, *untested)
        codes = _exit_codes()
    return summary({name: codes[name] for name in chosen}, len(codes), _changes, _equivalent())


def summary(
    codes: dict[str, int | None],
    population: int,
    change_of: Callable[[str], str],
    equivalent: dict[str, str],
) -> dict[str, Any]:
    """Count killed, surviving and equivalent mutants.

    Args:
        codes: pytest's exit code for each mutant, as mutmut keeps them; None = not tested.
        population: how many mutants there are in all.
        change_of: gives a mutant's name its change, "function: before → after".
        equivalent: reasons by change.
    """
    killed = [name for name, code in codes.items() if code in KILLED]
    timed_out = [name for name, code in codes.items() if code in TIMEOUTS]
    tested = [name for name, code in codes.items() if code is not None]
    alive = {n: change_of(n) for n in tested if n not in {*killed, *timed_out}}
    same = {change: equivalent[change] for change in alive.values() if change in equivalent}
    survivors = {name: change for name, change in alive.items() if change not in equivalent}
    caught = len(killed) + len(timed_out)
    counted = caught + len(survivors)
    figures = {
        "mutants in all": population,
        "mutants tested": len(tested),
        "killed": caught,
        "of them by running out of time": len(timed_out),
        "survived": len(survivors),
        "equivalent, not counted": len(alive) - len(survivors),
    }
    if counted:
        figures["killed, %"] = round(100 * caught / counted, 1)
    return {"figures": figures, "survivors": survivors, "equivalent": same}


def change(diff: str) -> str:
    """Return the removed and the added text of a function's unified diff, in one line."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return f"{before} → {after}"


def _mutmut(jobs: int, *names: str) -> None:
    """Run mutmut in a process whose tests import the mutants instead of the sources."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = ["mutmut", "run", "--max-children", str(jobs), *names]
    command[0] = str(Path(sys.executable).with_name("mutmut"))
    with open(ROOT / "mutants.log", "wb") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"mutmut ended with {done.returncode}; see {ROOT / 'mutants.log'}")


def _exit_codes() -> dict[str, int | None]:
    codes: dict[str, int | None] = {}
    for path in sorted(MUTANTS.rglob("*.meta")):
        codes |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return codes


def _changes(name: str) -> str:
    command = [str(Path(sys.executable).with_name("mutmut")), "show", name]
    diff = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"{name.rsplit('__mutmut_', 1)[0]}: {change(diff)}"


def _equivalent() -> dict[str, str]:
    text = EQUIVALENT.read_text(encoding="utf-8") if EQUIVALENT.exists() else ""
    return yaml.safe_load(text) or {}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, default=400, help="mutants to test")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    arguments = parser.parse_args()
    if arguments.again:
        shutil.rmtree(MUTANTS, ignore_errors=True)
    found = measure(arguments.sample, arguments.seed, arguments.jobs)
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
