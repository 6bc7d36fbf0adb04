"""Coverage-guided fuzzing of every reader by atheris: `make fuzz FUZZ_SECONDS=600`.

    python -m tests.fuzz --seconds 600 [READER ...]

An input of the fuzzer is either a file as it is, or the choices by which a valid one is broken.
Each reader runs in a process of its own, one after another. What makes one crash, or accept what
breaks what comes next, is written to out/fuzz/READER.crash as the file that did it: put it into
tests/experiments/fuzz/corpus/READER, and it is a test.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable

OUT = pathlib.Path("out/fuzz")
MEMORY_MIB = 8192
SECONDS_FOR_ONE = 120  # an input that takes longer counts as a crash


def _choices(data: bytes) -> Callable[[int], int]:
    """Numbers below n, read from the bytes; zeros where they end."""
    at = 0

    def choose(n: int) -> int:
        nonlocal at
        width = 1 if n <= 256 else 3
        part = data[at : at + width]
        at += width
        return int.from_bytes(part, "little") % n

    return choose


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one reader; does not return."""
    import atheris

    from tests.experiments.fuzz.mutate import break_file
    from tests.experiments.fuzz.readers import READERS, corpus

    reader = READERS[name]
    seeds = reader.seeds()
    work = OUT / name
    work.mkdir(parents=True, exist_ok=True)
    kept = [path.read_bytes() for path in sorted(corpus(name).glob("*"))]
    for i, seed in enumerate([*seeds, *kept]):
        (work / f"seed{i}").write_bytes(b"\1" + seed)
    for i in range(16):
        (work / f"choices{i}").write_bytes(
            bytes([0, i, *((37 * i + k) % 256 for k in range(0, 60, 5))])
        )

    def one(data: bytes) -> None:
        if data[:1] and data[0] & 1:
            content = data[1:]
        else:
            choose = _choices(data[1:])
            content = break_file(seeds[choose(len(seeds))], choose)
        crash = OUT / f"{name}.crash"
        try:
            reader.run(content)
        except BaseException:
            crash.write_bytes(content)
            raise

    log = os.open(OUT / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = [
        f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", f"-timeout={SECONDS_FOR_ONE}",
        "-print_final_stats=1", "-max_len=16384", f"-artifact_prefix={OUT / name}-", str(work),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz readers in turn and print what came of it; 1 if one of them crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each reader")
    parser.add_argument("readers", nargs="*", metavar="READER")
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("fuzz: atheris is not installed: pip install 'mallocgame[fuzz]'", file=sys.stderr)
        return 2
    packages = ["malloc_game", "agent", "workloads"]
    silent = contextlib.redirect_stderr(io.StringIO())  # a line for each module
    with silent, atheris.instrument_imports(include=packages):
        from tests.experiments.fuzz.readers import READERS
    unknown = set(arguments.readers) - READERS.keys()
    if unknown:
        parser.error(f"no reader {min(unknown)!r}; there are {', '.join(READERS)}")
    OUT.mkdir(parents=True, exist_ok=True)
    crashed = 0
    print(f"{'reader':18} {'inputs':>9} {'seconds':>8} {'crashes':>8}", flush=True)
    for name in arguments.readers or READERS:
        (OUT / f"{name}.crash").unlink(missing_ok=True)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _fuzz(name, arguments.seconds)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        took = time.monotonic() - began
        log = (OUT / f"{name}.log").read_text(errors="replace")
        found = re.search(r"number_of_executed_units: (\d+)", log)
        runs = found.group(1) if found else "?"
        crashed += status != 0
        print(f"{name:18} {runs:>9} {took:8.0f} {int(status != 0):>8}", flush=True)
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main())
