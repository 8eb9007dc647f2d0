"""Fails where a part of Switchyard includes a part that stands above it: includes.py ROOT.

app -> train -> model -> routing -> comm -> kernels/api -> core; train and app also use data, io and config, which see
only core; kernels/cpu and kernels/cuda implement kernels/api and are included by nobody.
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
    "train": {"model", "routing", "comm", "kernels/api", "core", "data", "io", "config"},
    "app": {"train", "model", "routing", "comm", "kernels/api", "core", "data", "io", "config"},
}
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


def sources(root):
    for folder in ("app", "lib", "kernels"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path


def violations(root):
    """One line of text for each offending #include below root."""
    found = []
    for path in sources(root):
        inside = path.relative_to(root).as_posix()
        includer = part_of(inside.removeprefix("lib/"))
        if includer is None:
            found.append(f"{inside}: belongs to no part in includes.py; add its folder there")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, target = match.groups()
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
