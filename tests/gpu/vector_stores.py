#!/usr/bin/env python3
"""Counts stores to global memory in the PTX of kernels that write rows in fours: nvcc takes a store of 16 or 8 bytes
apart where it sees fit, and nothing but its output shows that.

vector_stores.py NVCC prints the counts, of CUDA kernels compiled for compute capability 9.0. Exit code 1: a kernel has
more stores of single numbers than it should."""

import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = ["-O3", "-std=c++20", "-arch=compute_90", "--expt-relaxed-constexpr", "-DR123_USE_X86INTRIN_H=0",
         "-DR123_USE_SSE=0", f"-I{ROOT}", f"-I{ROOT}/lib"]

# By source: kernels, as far as a pattern goes; how many stores of single numbers they need, and what for.
NOTHING = (0, "nothing")
COLUMN_PASSES = [(r"column_pass_kernel<true, false, .*>", *NOTHING),
                 (r"column_pass_kernel<true, true, .*>", 2, "a partial sum, and one of no terms")]
EXPECTED = {
    "elementwise": COLUMN_PASSES,
    "embedding": COLUMN_PASSES,
    "routing": [(r"dispatch_kernel<true>", 1, "the slot's id"),
                (r"combine_kernel<true>", *NOTHING),
                (r"combine_backward_kernel<true>", 1, "the gradient of a weight")],
    "layernorm": [(r"layernorm_kernel<.*, true>", 2, "mean and scale of a row"),
                  (r"layernorm_backward_kernel<.*, true>", 5, "sums of a row block")],
    "gate_logits": [(r"gate_logits_backward_kernel<.*, true>", *NOTHING)],
    # Where rows are no whole eights: a row at a time, unrolled by four.
    "attention_mma": [(r"attention_mma_kernel<(128|64|32), .*>", 10, "rows of odd places, and 2 sums"),
                      (r"attention_mma_kernel<16, .*>", 16, "rows of odd places, and 2 sums")],
    "attention_mma_backward": [(r"attention_backward_mma_kernel<(128|64|32), .*>", 22, "rows of odd places, and sums"),
                               (r"attention_backward_mma_kernel<16, .*>", 34, "rows of odd places, and sums")],
}


def ptx_of(nvcc, source):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "kernels.ptx"
        # The C++ compiler that nvcc finds on the PATH may not be the system's.
        subprocess.run([nvcc, *FLAGS, "-ccbin", "/usr/bin/g++", "-ptx", f"{ROOT}/kernels/cuda/{source}.cu", "-o", out],
                       check=True, stdin=subprocess.DEVNULL, timeout=300)
        return out.read_text()


def plain(name):
    """A kernel's name as it stands in the source, from that in PTX."""
    name = subprocess.run(["c++filt", name], check=True, capture_output=True, text=True).stdout.strip()
    name = re.sub(r"switchyard::kernels::(cuda::)?|\(anonymous namespace\)::|^void ", "", name)
    return name.split("(", 1)[0]


def stores(body):
    """Stores to global memory: by 16 and 8 bytes, and of single numbers."""
    count = collections.Counter()
    for width, bits in re.findall(r"\bst\.global(?:\.wb)?(?:\.(v2|v4))?\.[a-z](\d+)", body):
        count[int(bits) * int(width[1:] if width else 1) // 8 if width else "single"] += 1
    return count


def main(nvcc):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        texts = dict(zip(EXPECTED, pool.map(lambda source: ptx_of(nvcc, source), EXPECTED)))
    print(f"{'kernel':72} {'16 bytes':>8} {'8 bytes':>8} {'single':>8} {'allowed':>8}")
    wrong = []
    for source, rules in EXPECTED.items():
        kernels = {plain(name): stores(body)
                   for name, body in re.findall(r"\.entry (\w+)\((.*?)\n\}", texts[source], re.S)}
        for pattern, most, what_for in rules:
            found = {name: count for name, count in kernels.items() if re.fullmatch(pattern, name)}
            if not found:
                wrong.append(f"kernels/cuda/{source}.cu has no kernel {pattern}: change this script with it")
            for name, count in found.items():
                print(f"{name:72} {count[16]:8} {count[8]:8} {count['single']:8} {most:8}")
                if count["single"] > most or count[16] + count[8] == 0:
                    wrong.append(f"kernels/cuda/{source}.cu: {name} stores {count['single']} single numbers where it "
                                 f"needs {most} ({what_for}); store_whole() in fours.cuh keeps a store whole")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
