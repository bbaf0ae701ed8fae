"""A soak: edits, applies, kills, restarts and faults by chance, and a check at each quiet point.

    soak = Soak(folder, seed=7)
    with soak.running():
        soak.play(seconds=60)
    soak.counts, soak.usages

`Disagreement` is raised by the first quiet point at which something is wrong.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soak.agreement import Checker
from soak.edits import Recipes
from soak.targets import ServedTarget, SoakTarget, Usage, local, served
from support.cli import Ran
from support.engine_files import write_lora
from support.state import state_of

from composer.lock import LOCK_NAME, read_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

LORAS = ("Ink", "Paint", "Stone", "Moss", "Glass", "Ember", "Frost", "Clay")
PATIENCE = 900.0  # seconds after which a command counts as hung
APPLY = ("apply", "--allow-large-change", "--poll-interval", "0.1s", "--lock-timeout", "600")
PRUNE = ("prune", "--yes", "--allow-large-change", "--lock-timeout", "600")
GRACE = ("--grace", "1s")
CALM = frozenset({0})
PROTECTED = frozenset({0, 1})  # a deletion that leaves a protected model ends with 1
WAITING = frozenset({0, 75})
FAULTY = frozenset({0, 1, 69, 75})  # requests or answers got lost
ATTEMPTS = 12  # for an apply without a fault


class Disagreement(AssertionError):
    """A quiet point at which something is wrong, or a command that ended as it must not."""


class Soak:
    """One run in `folder`, which holds the repository, the servers and the log.

    The memory and the open files of the first server, which nobody kills, are in `usages`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        sizes: tuple[int, int] = (20, 50),
        faults: int = 100,
        small: bool = False,
    ) -> None:
        """`sizes`: the fewest and the most recipes. `faults`: how many each start of a server
        draws for each kind of call. `small`: with no target but the server that is killed.
        """
        self.chance = random.Random(seed)
        self.library = folder / "loras"
        self.folder = folder
        self.root = folder / "project"
        for number, name in enumerate(LORAS):
            write_lora(self.library / f"{name}.safetensors", number, title=name)
        fewest, most = sizes
        self.recipes = Recipes(self.root, LORAS, self.chance, fewest=fewest, most=most)
        self.recipes.begin()
        names = ("unsteady",) if small else ("steady", "unsteady")
        self.servers = [served(name, folder, self.library, self.chance, faults) for name in names]
        self.unsteady = self.servers[-1]
        self.targets = [*self.servers, *([] if small else [local(self.root, self.library)])]
        self.checker = Checker(self.root, self.library, folder / "expected")
        self.log = (folder / "soak.log").open("a", encoding="utf-8")
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.usages: list[Usage] = []
        self.quiet_points = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Both servers run; they are ended with SIGTERM."""
        try:
            for target in self.servers:
                target.start()
            yield
        finally:
            for target in self.servers:
                if target.served.is_running:
                    target.served.stop()
            self.counts["faults that fired"] = sum(target.faults for target in self.servers)
            self.log.close()

    def play(self, *, seconds: float = 0.0, rounds: int = 0, every: int = 8) -> None:
        """Rounds until the time is over, then a quiet point; one after each `every` rounds, too."""
        if seconds:
            self.check()
        done = 0
        while self.elapsed < seconds or done < rounds:
            for _ in range(self.chance.choice((0, 1, 1, 2, 3, 5))):
                self.edit()
            self.chance.choices([*self.steps], [*self.steps.values()])[0](self)
            done += 1
            if done % every == 0:
                self.check()
        self.check()

    # --- running commands ----------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, words: str) -> None:
        self.log.write(f"{self.elapsed:8.2f} {words}\n")
        self.log.flush()

    def edit(self) -> None:
        self.note(self.recipes.edit())
        self.counts["edits"] += 1

    def start(
        self, target: SoakTarget, *command: str, at: Path | None = None
    ) -> subprocess.Popen[str]:
        if command[0] == "apply":
            self.counts["applies"] += 1
        return subprocess.Popen(
            [sys.executable, "-m", "composer", *command, *target.options],
            cwd=at or self.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **target.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(
        self, process: subprocess.Popen[str], target: SoakTarget, allowed: frozenset[int]
    ) -> Ran:
        """Wait for it; it must end with one of these statuses, and never with a traceback."""
        words = " ".join(process.args[3:])
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            raise Disagreement(f"hung: {words}") from None
        ran = Ran(process.returncode, out, err)
        self.note(f"{ran.status} {words}\n{indented(out + err)}")
        if ran.status not in allowed or "Traceback" in err or "internal error" in err:
            raise Disagreement(f"{target.name}: {words} ended with {ran.status}\n{out}{err}")
        return ran

    def run(self, target: SoakTarget, *command: str, allowed: frozenset[int] = CALM) -> Ran:
        """One command; where a fault fires meanwhile, it may also fail as requests do."""
        before = target.faults
        process = self.start(target, *command)
        ran = self.ended(process, target, allowed | FAULTY)
        if ran.status not in allowed and target.faults == before:
            raise Disagreement(f"{target.name}: {command} ended with {ran.status}\n{ran}")
        return ran

    def run_without_faults(
        self, target: SoakTarget, *command: str, allowed: frozenset[int] = CALM
    ) -> Ran:
        """The command once more until no fault fires while it runs."""
        for _ in range(ATTEMPTS):
            before, began = target.faults, time.monotonic()
            ran = self.run(target, *command, allowed=allowed)
            if target.faults == before:
                if command == apply_to(target):
                    target.note(time.monotonic() - began)
                return ran
        raise Disagreement(f"{target.name}: {ATTEMPTS} times a fault during {command}")

    # --- what happens --------------------------------------------------------------------

    def random_target(self) -> SoakTarget:
        return self.chance.choice(self.targets)

    def moment(self, target: SoakTarget) -> float:
        """Seconds until something happens to an apply."""
        return self.chance.uniform(0.2, 1.0) * target.typical

    def apply(self) -> None:
        target = self.random_target()
        self.run(target, *apply_to(target))

    def apply_some(self) -> None:
        """A part of the recipes, without waiting, or with deletions."""
        target = self.random_target()
        some = self.chance.choice([*self.recipes.read()])
        more, allowed = self.chance.choice(
            [
                ((some,), CALM),
                (("--since", "HEAD~1"), CALM),
                (("--no-wait",), WAITING),
                (("--prune",), PROTECTED),
                (("--parallelism", "1"), CALM),
            ]
        )
        self.run(target, *apply_to(target), *more, allowed=allowed)

    def prune(self) -> None:
        self.run(self.random_target(), *PRUNE, allowed=PROTECTED)

    def edit_meanwhile(self) -> None:
        """Edits while an apply runs; it may read the files between two of one edit."""
        target = self.random_target()
        process = self.start(target, *apply_to(target))
        for _ in range(self.chance.randint(1, 4)):
            time.sleep(self.moment(target) / 3)
            self.edit()
        self.counts["applies with edits meanwhile"] += 1
        self.ended(process, target, FAULTY | {65})

    def interrupt(self, what: str, *signals: signal.Signals) -> None:
        """Send these signals to a command that is running: mostly an apply."""
        target = self.random_target()
        command = self.chance.choice(
            [apply_to(target)] * 4 + [(*apply_to(target), "--prune"), PRUNE]
        )
        process = self.start(target, *command)
        time.sleep(self.moment(target))
        for number in signals:
            if process.poll() is None:
                process.send_signal(number)
            time.sleep(0.05)
        ends = {-number for number in signals} | {128 + number for number in signals}
        ran = self.ended(process, target, FAULTY | ends)
        self.counts[what if ran.status in ends else "signals that came too late"] += 1

    def kill(self) -> None:
        self.interrupt("applies killed (SIGKILL)", signal.SIGKILL)

    def terminate(self) -> None:
        self.interrupt("applies stopped (SIGTERM)", signal.SIGTERM)

    def terminate_twice(self) -> None:
        self.interrupt("applies stopped (SIGTERM twice)", signal.SIGTERM, signal.SIGTERM)

    def kill_server(self) -> None:
        """Kill or stop the server while an apply uses it, and start it again."""
        target = self.unsteady
        process = self.start(target, *apply_to(target))
        time.sleep(self.moment(target))
        if self.chance.random() < 0.7:
            target.served.kill()
            self.counts["servers killed (SIGKILL)"] += 1
        else:
            self.stop(target)
        time.sleep(self.chance.choice((0.0, 0.1, 1.0)))
        target.start()
        self.counts["restarts"] += 1
        self.ended(process, target, FAULTY)

    def stop(self, target: ServedTarget) -> None:
        status = target.served.stop()
        self.counts["servers stopped (SIGTERM)"] += 1
        if status:
            lines = "\n".join(target.served.lines[-20:])
            raise Disagreement(f"the server {target.name} ended with {status}\n{lines}")

    def restart(self, *, faults: bool = True) -> None:
        self.stop(self.unsteady)
        self.unsteady.start(faults=faults)
        self.counts["restarts"] += 1

    def two_at_once(self) -> None:
        """Two applies in one working copy, of one target or of two."""
        pair = [self.random_target(), self.random_target()]
        before = [target.faults for target in pair]
        processes = [self.start(target, *apply_to(target)) for target in pair]
        ran = [self.ended(p, target, FAULTY) for p, target in zip(processes, pair, strict=True)]
        self.counts["pairs of applies at once"] += 1
        for target, faults, one in zip(pair, before, ran, strict=True):
            if one.status and target.faults == faults:
                raise Disagreement(f"{target.name}: one of two applies failed\n{one}")

    def race(self) -> None:
        """Two clones apply at once, to a server without faults, and agree afterwards."""
        target = self.unsteady
        self.check()
        self.edit()
        self.edit()
        self.recipes.commit("Before a race")
        self.restart(faults=False)
        clone = self.folder / "clone"
        self.recipes.git("clone", "-q", str(self.root), str(clone))
        processes = [self.start(target, *apply_to(target), at=at) for at in (self.root, clone)]
        for process in processes:
            self.ended(process, target, CALM)
        for at in (self.root, clone):
            self.ended(self.start(target, *apply_to(target), at=at), target, CALM)
        self.counts["races of two clones"] += 1
        ours, theirs = ({**read_lock(at).target(target.key).recipes} for at in (self.root, clone))
        if ours != theirs:
            raise Disagreement(f"after a race one lock has {ours}\nthe other {theirs}")
        shutil.rmtree(clone)
        shutil.rmtree(state_of(clone))
        self.restart()

    steps: Mapping[Callable[[Soak], None], int] = {
        apply: 4,
        apply_some: 3,
        prune: 1,
        edit_meanwhile: 3,
        kill: 6,
        terminate: 3,
        terminate_twice: 2,
        kill_server: 5,
        restart: 1,
        two_at_once: 2,
        race: 1,
    }

    # --- quiet points --------------------------------------------------------------------

    def check(self) -> None:
        """A quiet point; raises `Disagreement` with all that is wrong."""
        self.note("quiet point")
        if self.quiet_points % 3 == 2:
            self.prune_all()
        found = []
        for target in self.targets:
            self.run_without_faults(target, *apply_to(target))
            found += self.at_rest(target)
        recipes = self.recipes.read()
        for target in self.targets:
            found += self.checker.problems(target, recipes)
        for target in self.servers:
            found += [line for line in target.served.lines if "Traceback" in line]
            target.served.lines.clear()
        if found:
            raise Disagreement("\n".join(found))
        self.recipes.commit(f"Quiet point {self.quiet_points}")
        self.usages.append(self.servers[0].usage())
        self.note(f"{self.usages[-1]}")
        self.quiet_points += 1

    def prune_all(self) -> None:
        """Delete what nobody needs, so that the targets don't grow."""
        recipes = self.recipes.read()
        for target in self.targets:
            self.run_without_faults(target, *apply_to(target), "--prune", allowed=PROTECTED)
            self.run_without_faults(target, *PRUNE, allowed=PROTECTED)
            entries = read_lock(self.root).target(target.key).recipes
            gone = {path: e.name for path, e in entries.items() if path not in recipes}
            for path in self.recipes.release(gone):
                self.note(f"release {path}")

    def at_rest(self, target: SoakTarget) -> list[str]:
        """The next plan has no change; or, by chance, the next apply does nothing at all."""
        if self.chance.random() < 0.5:
            self.run_without_faults(target, "plan", "--detailed-exitcode")
            return []
        lock = self.root / LOCK_NAME
        before = lock.read_bytes(), lock.stat().st_mtime_ns
        again = self.run_without_faults(target, *apply_to(target))
        if not again.out.startswith("No changes"):
            return [f"{target.name}: the second apply said {again.out}"]
        if (lock.read_bytes(), lock.stat().st_mtime_ns) != before:
            return [f"{target.name}: the second apply wrote the lock"]
        return []


def apply_to(target: SoakTarget) -> Sequence[str]:
    return (*APPLY, *(GRACE if isinstance(target, ServedTarget) else ()))


def indented(text: str) -> str:
    return "".join(f"         | {line}\n" for line in text.splitlines())
