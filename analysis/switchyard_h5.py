"""Opens Switchyard's HDF5 files, ones that are being written or were damaged too, and reads their tables."""

import contextlib
import ctypes
import pathlib
import struct
import time

import h5py
import numpy as np
from switchyard_schema import BENCH_FORMAT, CHECKPOINT_FORMAT, RESULTS_FORMAT, STUDY_FORMAT


class ResultsError(Exception):
    """One line: the file, what is wrong with it, what to do."""


@contextlib.contextmanager
def reading(path, place=""):
    """What h5py raises for damage, as a ResultsError that says where."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{path}: is damaged or cut short{place} ({reason}): resume or repeat the run") from None


def column_name(path):
    return path.split("/")[1]


def text_of(value):
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def open_h5(path):
    """An HDF5 file for reading, one that is being written (SWMR) too."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ResultsError(f"{path}: no such file")
    try:
        return with_locks_or_without(lambda **locking: h5py.File(path, "r", **locking))
    except (OSError, RuntimeError) as error:
        reason = str(error)
    # The mark "open for writing" is bit 0 of byte 11 in the first block of the file; bytes 28 to 35 say how long the
    # file should be. HDF5 would read on past the end of a file that was cut short. A writer may be a moment behind.
    for _ in range(5):
        with path.open("rb") as file:
            head = file.read(36)
        if not head.startswith(b"\x89HDF\r\n\x1a\n"):
            raise ResultsError(f"{path}: is not an HDF5 file, or its first bytes are damaged")
        is_open = len(head) == 36 and head[8] == 3 and head[11] & 1
        if is_open and path.stat().st_size >= struct.unpack("<Q", head[28:])[0]:
            break
        time.sleep(0.05)
    else:
        raise ResultsError(f"{path}: is damaged or cut short ({reason}): resume or repeat the run")
    with reading(path):
        return with_locks_or_without(lambda **locking: h5py.File(
            h5py.h5f.open(bytes(path), h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ, patient_access(**locking))))


def with_locks_or_without(open_file):
    """Several cluster file systems have no locks. With them first: HDF5 does not open a file without locks that this
    process has open with them."""
    try:
        return open_file()
    except (OSError, RuntimeError):
        return open_file(locking=False)


def patient_access(locking=True):
    """How a file that is being written is opened. Where a checksum does not fit yet, HDF5 reads again, each time after
    twice the pause: its own 100 attempts would never end on a damaged file, these end within a tenth of a second.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    if not locking:
        access.set_file_locking(False, True)
    # h5py has no such call; the library that it is linked to has.
    ctypes.CDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts(ctypes.c_int64(access.id), ctypes.c_uint(25))
    return access


def check_format(file, path, wanted, newest):
    """The file's schema version, after its format and version were found to be readable."""
    found = text_of(file.attrs.get("format", b""))
    kinds = {CHECKPOINT_FORMAT: "a checkpoint", RESULTS_FORMAT: "results of a run", BENCH_FORMAT: "a benchmark",
             STUDY_FORMAT: "a collected study"}
    if found != wanted:
        raise ResultsError(f"{path}: is {kinds.get(found, 'an HDF5 file of another program')}, not {kinds[wanted]}")
    version = int(file.attrs.get("schema_version", 0))
    if version < 1:
        raise ResultsError(f"{path}: is damaged: its attribute schema_version is missing")
    if version > newest:
        raise ResultsError(f"{path}: written by a newer program (schema version {version}, this module reads up to "
                           f"{newest}): use the analysis/ of that program")
    return version


def stored_rows(dataset):
    """The rows that the file can hold, whatever the shape claims: filters shrink no more than deflate, 1032 to 1."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=float)))
    filtered = dataset.id.get_create_plist().get_nfilters() > 0
    return min(len(dataset), dataset.id.get_storage_size() * (1100 if filtered else 1) // row_bytes)


def read_columns(file, path, schema, version):
    """The whole rows of a table, by column name. `step` is written last, and grows; what a killed writer left may not.
    """
    columns = {}
    for name, (_, since) in schema.items():
        if since <= version:
            with reading(path, f" at {name}"):
                columns[column_name(name)] = file[name][:stored_rows(file[name])]
    rows = min(map(len, columns.values()))
    steps = columns["step"][:rows]
    unordered = np.flatnonzero(np.diff(steps) <= 0)
    rows = int(unordered[0]) + 1 if len(unordered) else rows
    return {name: values[:rows] for name, values in columns.items()}
