#!/usr/bin/env python3
"""Switchyard and its PyTorch twin on the same cores, in turn, round after round: images a second of each, and ratios.

Needs a release build, and PyTorch from analysis/peers/setup.sh. Ends with an error where either program does.
"""

TWIN_OPTIONS = """
TWIN OPTIONS, after --, go to analysis/peers/twin.py, whose own --help says more:
  --microbatch N        samples that PyTorch computes together (16)
  --warmup N            steps before those that count (2)
  --[no-]sdpa           attention by scaled_dot_product_attention (on where PyTorch has it)
  --[no-]autocast       bf16 (as --dtypes says)
  --[no-]compile        torch.compile (off)
  --[no-]keep-memory    freed memory stays with the process (on)
  --device DEVICE       cpu or cuda (cpu)
  --KEY VALUE           a key of the configuration, for PyTorch alone
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import textwrap

from settings import read_settings

ROOT = pathlib.Path(__file__).resolve().parents[2]


BUILD_HINT = "build Switchyard first: cmake --preset release && cmake --build build/release"
SETUP_HINT = "set PyTorch up first: analysis/peers/setup.sh"


class Failed(Exception):
    """Says which program failed and what it printed."""


class Misused(Failed):
    """Says what is wrong with the command line, or missing."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Misused(f"{message}; --help tells more")


def models_there_are():
    return sorted(file.stem.removeprefix("vit-seed-") for file in (ROOT / "configs").glob("vit-seed-*.cfg"))


def parse_arguments(words):
    ours, twins = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = Parser(usage="%(prog)s [OPTIONS] [-- TWIN OPTIONS]", description=__doc__, epilog=TWIN_OPTIONS,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["dense", "switch", "random"], choices=models_there_are(),
                        metavar="MODEL", help="of configs/vit-seed-MODEL.cfg: %(choices)s")
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"], metavar="DTYPE",
                        help="%(choices)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are run in turn (default 3)")
    parser.add_argument("--steps", type=int, default=4, help="steps that count in each run, after two that do not")
    parser.add_argument("--batch", type=int, default=128, help="samples a step (default 128, the study's)")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)),
                        help="for either program (default: all that there are)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release", metavar="FOLDER",
                        help="of Switchyard's build: where the program lies (default build/release)")
    parser.add_argument("--python", type=pathlib.Path, default=ROOT / "build/peers-venv/bin/python", metavar="PROGRAM",
                        help="a Python with PyTorch (default that of analysis/peers/setup.sh, in build/peers-venv)")
    parser.add_argument("--markdown", action="store_true", help="a table for a README")
    arguments = parser.parse_args(ours)
    if min(arguments.rounds, arguments.steps, arguments.batch, arguments.cores) < 1:
        parser.error("--rounds, --steps, --batch and --cores: at least 1")
    arguments.twin_options = twins
    return arguments


def require_programs(arguments):
    """What is missing is known before the first run, which takes its time."""
    program = arguments.build / "switchyard"
    if not os.access(program, os.X_OK) or not program.is_file():
        raise Misused(f"{program} is not there, or no program: {BUILD_HINT}")
    try:
        done = subprocess.run([str(arguments.python), "-c", "import torch"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Misused(f"{arguments.python} does not start ({error.strerror}): {SETUP_HINT}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Misused(f"{arguments.python} cannot load PyTorch ({reason}): {SETUP_HINT}")


def output_of(command):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failed(f"{command[0]} does not start: {error.strerror}") from error
    if done.returncode != 0:
        raise Failed(f"exit code {done.returncode} of: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def switchyard_rate(output):
    """Images a second in what `switchyard bench step` printed; the row's columns: seconds, images/s, GFLOP/s."""
    rows = re.findall(r"^training step +(\d+\.\d+) +(\d+\.\d+) +(\d+\.\d+)$", output, re.MULTILINE)
    if not re.search(r"^ +seconds +images/s +GFLOP/s$", output, re.MULTILINE) or len(rows) != 1:
        raise Failed(f"bench step: no row \"training step\" under seconds, images/s and GFLOP/s in:\n{output}")
    rate = float(rows[0][1])
    if rate <= 0:
        raise Failed(f"bench step: {rate} images/s are too few to compare:\n{output}")
    return rate


def ranks_for(cores, microbatches):
    """Ranks share a batch's microbatches out evenly, a power of two of them; the other cores are their threads."""
    ranks = 1
    while 2 * ranks <= cores and microbatches % (2 * ranks) == 0:
        ranks *= 2
    return ranks


def run_switchyard(arguments, words):
    settings = read_settings([words[1]], [("train.batch", str(arguments.batch))])
    ranks = ranks_for(arguments.cores, settings["train.batch"] // settings["train.microbatch"])
    program = [ROOT / "scripts/mpirun.sh", ranks, arguments.build / "switchyard"]
    words = [*words, "--parallel.threads", arguments.cores // ranks]
    return switchyard_rate(output_of([*program, "bench", "step", "--steps", arguments.steps, *words]))


def run_twin(arguments, words):
    output = output_of([arguments.python, ROOT / "analysis/peers/twin.py", "--steps", arguments.steps,
                        "--threads", arguments.cores, *words, *arguments.twin_options])
    try:
        twin = json.loads(output)
        twin["images_per_second"] = float(twin["images_per_second"])
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"twin.py: no line of JSON with images_per_second in its output:\n{output}") from error
    return twin


def measure(arguments, model, dtype):
    """Rates of both, (rounds) each, and what the twin said of itself."""
    words = ["--config", ROOT / f"configs/vit-seed-{model}.cfg", "--compute.dtype", dtype,
             "--train.batch", arguments.batch]
    ours, theirs = [], []
    for number in range(1, arguments.rounds + 1):
        ours.append(run_switchyard(arguments, words))
        twin = run_twin(arguments, words)
        theirs.append(twin["images_per_second"])
        print(f"{model} {dtype}, round {number}: {ours[-1]:.1f} and {theirs[-1]:.1f} images/s", file=sys.stderr)
    return ours, theirs, twin


def row_of(model, dtype, ours, theirs):
    ratios = [a / b for a, b in zip(ours, theirs)]
    return [model, dtype, f"{statistics.median(ours):.1f}", f"{statistics.median(theirs):.1f}",
            f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]


HEADER = ["model", "dtype", "Switchyard, images/s", "PyTorch, images/s", "ratio", "over the rounds"]


def table(rows, markdown):
    """Lines; the first two columns are text, the others stand right."""
    rows = [HEADER, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = [[text.ljust(width) if i < 2 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths))]
             for row in rows]
    if not markdown:
        return ["  ".join(line).rstrip() for line in lines]
    rule = "|---|---" + "|---:" * (len(HEADER) - 2) + "|"
    lines = ["| " + " | ".join(line) + " |" for line in lines]
    return [lines[0], rule, *lines[1:]]


def compiler(build):
    cache = build / "CMakeCache.txt"
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", cache.read_text(), re.MULTILINE) if cache.exists() else None
    return output_of([found[1], "--version"]).splitlines()[0] if found else "an unknown compiler"


def processor():
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def plural(count, name):
    return f"{count} {name}{'' if count == 1 else 's'}"


def describe(arguments, twin):
    """Lines below the table."""
    # With dropout PyTorch's attention on CPUs takes its plain path even where it is asked for the fused one.
    switches = [name for name in ("sdpa", "compile") if twin[name]]
    return textwrap.wrap(
        f"{plural(arguments.cores, 'core')} of {processor()}. Switchyard: "
        f"{compiler(arguments.build)}. PyTorch {twin['torch']}: "
        f"1 process of {plural(twin['threads'], 'thread')}, microbatch {twin['microbatch']}"
        f"{''.join(', ' + name for name in switches)}. Medians of {plural(arguments.rounds, 'round')} of "
        f"{plural(arguments.steps, 'step')}, batch {twin['batch']}.", 100)


def main():
    arguments = parse_arguments(sys.argv[1:])
    require_programs(arguments)
    rows = []
    for model in arguments.models:
        for dtype in arguments.dtypes:
            ours, theirs, twin = measure(arguments, model, dtype)
            rows.append(row_of(model, dtype, ours, theirs))
    print("\n".join([*table(rows, arguments.markdown), "", *describe(arguments, twin)]))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(f"compare.py: {failure}", file=sys.stderr)
        sys.exit(2 if isinstance(failure, Misused) else 1)
