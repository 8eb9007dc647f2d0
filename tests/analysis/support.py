"""What the tests of analysis/ share: the Python that they run in, and small runs of the program's.

They run in the Python that SWITCHYARD_ANALYSIS_PYTHON names (CMakeLists.txt), else in the one that they were started
with, or where that one lacks a library in Debian's, which has them where the packages are installed. A test ends with
77 (skipped), saying why, where a library is missing. Whatever a library warns of in analysis/ or in a test is an error,
in the notebooks and in the report's process, too: newer versions refuse what they warned of.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

DEBIAN = "/usr/bin/python3"
ROOT, PROGRAM = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
MODULES = [*sorted(file.stem for file in (ROOT / "analysis").glob("*.py")), "__main__"]
WARNINGS = ",".join(f"error:::{module}" for module in MODULES)


def skip(words):
    print(f"skipped: {words}")
    sys.exit(77)


def run_in(python):
    """This test from its beginning, unless it is there already. Python reads PYTHONWARNINGS when it starts."""
    if (sys.executable, os.environ.get("PYTHONWARNINGS")) != (python, WARNINGS):
        os.environ["PYTHONWARNINGS"] = WARNINGS
        os.execv(python, [python, "-B", *sys.argv])


def require(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing and "SWITCHYARD_ANALYSIS_PYTHON" not in os.environ and os.path.exists(DEBIAN):
        run_in(DEBIAN)
    if missing:
        skip(f"{sys.executable} has no {', '.join(missing)}; Debian: apt-get install python3-h5py python3-pandas "
             "python3-matplotlib python3-scipy python3-nbclient python3-ipykernel")


own = os.environ.get("SWITCHYARD_ANALYSIS_PYTHON", sys.executable)
if not os.path.exists(own):
    skip(f"there is no {own}: newest.sh says why")
run_in(own)
require("h5py", "numpy", "pandas", "matplotlib", "scipy")
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
