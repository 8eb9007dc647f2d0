"""What the tests of analysis/ share. Ends with 77 (skipped), saying why, where a Python library is missing.

Debian's python3 has them where the packages are installed, whatever python3 stands first on the path.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

NEEDED = ("h5py", "numpy", "pandas", "matplotlib", "nbclient", "nbformat", "ipykernel")
DEBIAN = "/usr/bin/python3"

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing and os.path.realpath(sys.executable) != os.path.realpath(DEBIAN) and os.path.exists(DEBIAN):
    os.execv(DEBIAN, [DEBIAN, "-B", *sys.argv])
if missing:
    print(f"skipped: no {', '.join(missing)}; Debian: apt-get install python3-h5py python3-pandas python3-matplotlib "
          "python3-nbclient python3-ipykernel")
    sys.exit(77)

ROOT, PROGRAM = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
sys.path.insert(0, str(ROOT / "analysis"))

TINY = """
[data]
kind = synthetic
synthetic_size = 8
synthetic_samples = 64
[model]
layers = 2
width = 8
heads = 2
patch = 4
[ffn]
kind = moe
hidden = 8
experts = 4
[train]
batch = 16
microbatch = 4
dropout = 0
"""


def start(folder, name, *keys, ranks=1, config=None):
    """A training run in folder/name that has begun; its words are in folder/name.log."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    if config is None:
        config = pathlib.Path(folder, "tiny.cfg")
        config.write_text(TINY, encoding="utf-8")
    words = [ROOT / "scripts/mpirun.sh", ranks, PROGRAM, "train", "--config", config, "--run.out", folder,
             "--run.name", name, *keys]
    with open(pathlib.Path(folder, f"{name}.log"), "wb") as log:
        return subprocess.Popen([str(word) for word in words], stdout=log, stderr=subprocess.STDOUT)


def train(folder, name, *keys, **others):
    if start(folder, name, *keys, **others).wait() != 0:
        raise RuntimeError(pathlib.Path(folder, f"{name}.log").read_text(encoding="utf-8"))
    return pathlib.Path(folder, name, "results.h5")


def run_study(folder, study, *keys):
    """Some of the runs of configs/studies/STUDY.cfg, in folder/STUDY."""
    words = [PROGRAM, "study", "run", ROOT / f"configs/studies/{study}.cfg", "--run.out", folder, *keys]
    done = subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def bench(benchmark, file, *keys, ranks=1):
    config = file.with_suffix(".cfg")
    config.write_text(TINY, encoding="utf-8")
    words = [ROOT / "scripts/mpirun.sh", ranks, PROGRAM, "bench", benchmark, "--config", config, "--steps", 3,
             "--output", file, *keys]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    return file


def bench_exchange(file, ranks):
    return bench("exchange", file, "--parallel.experts", ranks, ranks=ranks)
