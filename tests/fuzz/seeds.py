"""Inputs for the fuzzers to begin with, and their dictionaries: seeds.py PROGRAM FOLDER.

FOLDER gets a folder for each fuzzer and config.dict, study.dict. Checkpoints and results are those of tiny trainings by
PROGRAM; every file is as small as its format allows, since a fuzzer's mutation of a large one seldom meets its structure.
"""

import gzip
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = """[run]
steps = 4
[data]
kind = synthetic
synthetic_samples = 16
synthetic_size = 8
synthetic_classes = 2
[model]
layers = 1
width = 4
heads = 1
patch = 4
[ffn]
hidden = 4
experts = 2
leaf = 2
[train]
batch = 4
microbatch = 4
"""
STUDY = """[study]
name = tiny
ranks = 2
axis = ffn.experts: 1, 2, 4
axis = ffn.kind, ffn.router: dense & switch, moe & random
axis = run.seed: 1..3
set = ffn.inference: average if ffn.router: random
set = train.lr: 0.01; train.clip: 1 if ffn.experts: 4
exclude = ffn.experts: 4; ffn.kind: dense

""" + TINY.replace("experts = 2\n", "")


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def texts(folder, help_text):
    """Configurations, studies, and the words that both are made of."""
    for path in sorted((ROOT / "configs").glob("*.cfg")):
        write(folder / "config", path.name, path.read_text())
    write(folder / "config", "tiny.cfg", TINY)
    for path in sorted((ROOT / "configs/studies").glob("*.cfg")):
        write(folder / "study", path.name, path.read_text())
    write(folder / "study", "tiny.cfg", STUDY)

    keys = re.findall(r"^  --([a-z_]+)\.([a-z0-9_]+) ", help_text, re.MULTILINE)
    allowed = " ".join(re.findall(r"allowed: (.*\|.*)", help_text))
    words = {f"[{section}]\\x0a" for section, _ in keys} | {f"{key} = " for _, key in keys}
    words |= set(re.findall(r"[a-z0-9_-]+", allowed)) | {"1e300", "-1", "0.5", "18446744073709551615", "#", "nan", "inf"}
    dictionary = "".join(f'"{word}"\n' for word in sorted(words))
    write(folder, "config.dict", dictionary)
    study = ["[study]\\x0a", "axis = ", "set = ", "exclude = ", "ranks", "name = ", " if ", ": ", "; ", " & ", "1..3"]
    study += [".".join(key) for key in keys]
    write(folder, "study.dict", dictionary + "".join(f'"{word}"\n' for word in study))


def idx(folder):
    """As idx.cpp takes them apart: a byte of options, the length of the labels' file, both files."""
    for count in (1, 2):
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(range(count))
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28) + bytes(count * 28 * 28)
        for name, pack in (("plain", bytes), ("gzip", lambda file: gzip.compress(file, mtime=0))):
            parts = [pack(labels), pack(images)]
            for options in range(8):
                content = struct.pack("<BH", options, len(parts[0])) + b"".join(parts)
                write(folder / "idx", f"{name}-{count}-{options}", content)


def cifar(folder):
    for kind, label in ((0, b"\3"), (128, b"\3\x1b")):
        for count in (1, 2):
            write(folder / "cifar", f"{kind}-{count}", bytes([kind + 4 * (count - 1)]) + count * (label + bytes(3072)))


def hdf5(folder):
    """Images and labels in the layouts that h5py writes; libver: the file format's older and newer structures."""
    folder = folder / "hdf5"
    folder.mkdir(parents=True, exist_ok=True)
    layouts = {
        "contiguous": {},
        "chunked": {"chunks": True, "maxshape": True},
        "deflate": {"chunks": True, "compression": "gzip"},
        "shuffle": {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"chunks": True, "compression": "lzf"},
    }
    for libver in ("earliest", "latest"):
        for name, options in layouts.items():
            for shape, label_type in (((4, 2, 2, 1), "i8"), ((3, 2, 2), ">u2")):
                with h5py.File(folder / f"{libver}-{name}-{len(shape)}.h5", "w", libver=libver) as file:
                    if len(shape) == 3:
                        file.attrs["classes"] = 10
                    for split in ("train", "test"):
                        images = numpy.arange(numpy.prod(shape), dtype="u1").reshape(shape)
                        labels = numpy.arange(shape[0]).astype(label_type)
                        for part, values in (("images", images), ("labels", labels)):
                            own = dict(options)
                            if "chunks" in own:
                                own["chunks"] = values.shape
                            if "maxshape" in own:
                                own["maxshape"] = (None,) + values.shape[1:]
                            file.create_dataset(f"{split}/{part}", data=values, **own)


def small_copy(source, target, libver):
    """A file of this program with chunks of a few rows, where its own hold a thousand."""
    with h5py.File(source, "r") as old, h5py.File(target, "w", libver=libver) as new:

        def copy_attributes(item, copy):
            for name in item.attrs:
                attribute = h5py.h5a.open(item.id, name.encode())
                values = numpy.empty(attribute.shape, attribute.dtype)
                attribute.read(values)
                made = h5py.h5a.create(copy.id, name.encode(), attribute.get_type(), attribute.get_space())
                made.write(values)

        def copy_item(name, item):
            if isinstance(item, h5py.Group):
                copy = new.require_group(name)
            elif item.chunks:
                chunks = (min(4, item.chunks[0]),) + item.chunks[1:]
                copy = new.create_dataset(name, item.shape, item.id.get_type(), item[:], maxshape=item.maxshape, chunks=chunks)
            else:
                old.copy(name, new, name=name)
                return
            copy_attributes(item, copy)

        copy_attributes(old, new)
        old.visititems(copy_item)


def runs(program, folder):
    """Checkpoints and results of each kind of feed-forward network."""
    for kind in ("checkpoint", "results"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        write(pathlib.Path(work), "tiny.cfg", TINY)
        for ffn in ("dense", "moe", "fff"):
            command = [program, "train", "--config", "tiny.cfg", "--ffn.kind", ffn, "--run.name", ffn]
            subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
            run = pathlib.Path(work) / "runs" / ffn
            (folder / "checkpoint" / f"{ffn}.h5").write_bytes((run / "checkpoint-00000004.h5").read_bytes())
            for libver in ("earliest", "latest"):
                small_copy(run / "results.h5", folder / "results" / f"{ffn}-{libver}.h5", libver)
        small_copy(pathlib.Path(work) / "runs/moe/checkpoint-00000004.h5", folder / "checkpoint/moe-earliest.h5", "earliest")


def main():
    program, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    help_text = subprocess.run([program, "train", "--help"], check=True, capture_output=True, text=True).stdout
    texts(folder, help_text)
    idx(folder)
    cifar(folder)
    hdf5(folder)
    runs(program, folder)


main()
