"""analysis/switchyard_folders.py finds each file once, whatever links and names lead to it.

folders_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import os
import pathlib
import tempfile
import unittest

import support  # first: it puts analysis/ on the path
from switchyard_folders import find_files


class Folders(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)
        for run in ("runs/b", "runs/study/c", "scratch/run17"):
            (self.place / run).mkdir(parents=True)
            (self.place / run / "results.h5").touch()

    def link(self, name, target):
        (self.place / name).parent.mkdir(parents=True, exist_ok=True)
        (self.place / name).symlink_to(target)

    def found(self, *names, **others):
        files = find_files([self.place / name for name in names], **others)
        return [str(file.relative_to(self.place).parent) for file in files]

    def test_a_run_counts_under_its_own_name(self):
        self.link("runs/a", "b")
        self.link("runs/again/results.h5", "../study/c/results.h5")
        self.link("runs/all", self.place / "runs")
        self.assertEqual(self.found("runs"), ["runs/b", "runs/study/c"])

    def test_links_to_other_places_are_followed_and_count_once(self):
        self.link("runs/latest", self.place / "scratch/run17")
        self.link("runs/newest", "latest")
        self.link("runs/one/results.h5", self.place / "scratch/run17/results.h5")
        self.assertEqual(self.found("runs"), ["runs/b", "runs/latest", "runs/study/c"])
        self.link("linked", "runs")
        self.assertEqual(self.found("linked"), ["linked/b", "linked/latest", "linked/study/c"])

    def test_links_upwards_lead_to_nothing_new(self):
        self.link("runs/study/up", "../..")
        self.link("scratch/run17/up", "..")
        self.link("runs/latest", self.place / "scratch/run17")
        for beside in ("beside", "scratch/run18"):
            (self.place / beside).mkdir()
            (self.place / beside / "results.h5").touch()
        self.assertEqual(self.found("runs"), ["runs/b", "runs/latest", "runs/study/c"])

    def test_folders_that_lead_to_each_other_end(self):
        self.link("runs/there", self.place / "scratch")
        self.link("scratch/back", self.place / "runs")
        self.link("scratch/itself", "itself")
        self.assertEqual(self.found("runs"), ["runs/b", "runs/study/c", "runs/there/run17"])
        self.assertEqual(self.found("scratch"), ["scratch/back/b", "scratch/back/study/c", "scratch/run17"])

    def test_places_that_overlap_count_once(self):
        self.assertEqual(self.found("runs/study", "runs", "runs/b", "runs"), ["runs/study/c", "runs/b"])
        os.link(self.place / "runs/b/results.h5", self.place / "other.h5")
        self.assertEqual(self.found("other.h5", "runs", pattern="*.h5"), [".", "runs/study/c"])

    def test_what_is_missing_is_left_to_who_opens_it(self):
        self.link("runs/gone/results.h5", "nowhere.h5")
        self.assertEqual(self.found("none", "runs"), [".", "runs/b", "runs/gone", "runs/study/c"])

    def test_hidden_folders_are_left_out(self):
        self.link("runs/.snapshots/yesterday", self.place / "scratch/run17")
        self.assertEqual(self.found("runs"), ["runs/b", "runs/study/c"])


if __name__ == "__main__":
    unittest.main(argv=["folders_test.py", "-v"])
