"""Finds the files of a folder of runs, each once, whatever links and names lead to it."""

import fnmatch
import os
import pathlib


def find_files(places, pattern="results.h5"):
    """Files whose name fits the pattern, in a folder and below it or in a list of folders; a file stands for itself.

    Links are followed, and a file counts once: under its own name where that is in the folder too, else under the first
    that was found. A link to a folder that holds the link leads to nothing new, and is not followed; nor are hidden
    folders looked into.
    """
    found = {}
    for place in [places] if isinstance(places, (str, pathlib.Path)) else places:
        place = pathlib.Path(place)
        below = {}
        for file in files_below(place, pattern) if place.is_dir() else [place]:
            below.setdefault(identity(file), file)
        for file in sorted(below.values()):
            found.setdefault(identity(file), file)
    return list(found.values())


def files_below(top, pattern):
    """Names without links first, then those in folders behind links, then links to files."""
    entered, folders, links = set(), [top], []
    while folders:
        for folder, names, files in os.walk(folders.pop(0)):
            if identity(folder) in entered:  # behind a link, or mounted here as well
                names.clear()
                continue
            entered.add(identity(folder))
            names[:] = sorted(name for name in names if not name.startswith("."))
            folders += [path for name in names if leads_elsewhere(path := pathlib.Path(folder, name))]
            for name in fnmatch.filter(files, pattern):
                path = pathlib.Path(folder, name)
                if path.is_symlink():
                    links.append(path)
                else:
                    yield path
    yield from links


def leads_elsewhere(path):
    """Whether a folder's name is a link, and not to a folder that holds it."""
    return path.is_symlink() and not pathlib.Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def identity(path):
    """Of a file or folder, the same under all its names; of one that cannot be looked at, its name."""
    try:
        status = os.stat(path)
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino
