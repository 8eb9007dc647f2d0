"""Fails where a part of Switchyard includes a part that stands above it, or a header of CUDA: includes.py ROOT.

app -> train -> network -> model -> routing -> comm -> kernels/api -> core; network, train and app also use data, io and config, which see
only core; kernels/cpu and kernels/cuda implement kernels/api and are included by nobody. tests/ may include all of
them.

CUDA's headers belong to kernels/cuda and to lib/comm/nccl.cpp: everything else, the tests too, builds without CUDA.
"""

import pathlib
import re
import sys

MAY_INCLUDE = {
    "core": set(),
    "config": {"core"},
    "data": {"core"},
    "io": {"core"},
    "kernels/api": {"core"},
    "kernels/cpu": {"kernels/api", "core"},
    "kernels/cuda": {"kernels/api", "core"},
    "kernels": {"kernels/api", "kernels/cpu", "kernels/cuda", "core"},  # the switch on the device
    "comm": {"kernels/api", "core"},
    "routing": {"comm", "kernels/api", "core"},
    "model": {"routing", "comm", "kernels/api", "core"},
    "network": {"model", "routing", "comm", "kernels/api", "core", "data", "io", "config"},
    "train": {"network", "model", "routing", "comm", "kernels/api", "core", "data", "io", "config"},
    "app": {"train", "network", "model", "routing", "comm", "kernels/api", "core", "data", "io", "config"},
}
CUDA_HEADER = re.compile(
    r"(cu|nccl|nv)\w*\.(h|hpp|cuh)$|(mma|vector_types|driver_types)\.h$|(cub|cuda|thrust|cooperative_groups)[/.]"
)
MAY_INCLUDE_CUDA = ("kernels/cuda/", "lib/comm/nccl.cpp")
SUFFIXES = {".hpp", ".cpp", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def part_of(path):
    """The part that owns a path below lib/ or the root; None for a library outside the project."""
    folders = path.split("/")[:-1]
    for depth in (2, 1):
        name = "/".join(folders[:depth])
        if len(folders) >= depth and name in MAY_INCLUDE:
            return name
    return None


def sources(root, folders=("app", "lib", "kernels", "tests")):
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path


def violations(root):
    """One line of text for each offending #include below root."""
    found = []
    for path in sources(root):
        inside = path.relative_to(root).as_posix()
        is_test = inside.startswith("tests/")
        includer = part_of(inside.removeprefix("lib/"))
        if includer is None and not is_test:
            found.append(f"{inside}: belongs to no part in includes.py; add its folder there")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, target = match.groups()
            if CUDA_HEADER.match(target) and not inside.startswith(MAY_INCLUDE_CUDA):
                found.append(f"{inside}:{number}: {target} is CUDA's, which only {' and '.join(MAY_INCLUDE_CUDA)} see")
            if is_test:
                continue
            included = part_of(target)
            if included is None and quote == '"':
                found.append(f'{inside}:{number}: "{target}": write it as "part/file.hpp"')
            elif included not in (None, includer) and included not in MAY_INCLUDE[includer]:
                found.append(f"{inside}:{number}: {includer} must not include {included} ({target})")
    return found


def main():
    root = pathlib.Path(sys.argv[1])
    num_files = len(list(sources(root)))
    found = violations(root)
    print("\n".join(found + [f"{num_files} files, {len(found)} violations"]))
    return 1 if found or num_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
