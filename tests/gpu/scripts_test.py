"""bundle.sh and check.sh write to the place that they are given, and replace nothing there but their own. No GPU.

scripts_test.py ROOT
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
PROGRAM = shutil.which("xz")  # stands in for all programs; it needs a library, as they do


class Scripts(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="two words ")
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)

    def run_script(self, name, *words):
        path = f"{self.place}/path:/usr/bin:/bin"
        return subprocess.run([self.place / "tests/gpu" / name, *map(str, words)], check=False, capture_output=True,
                              text=True, env={**os.environ, "PATH": path})

    def refused(self, wanted, name, *words):
        done = self.run_script(name, *words)
        self.assertEqual(done.returncode, 2, done)
        self.assertIn(wanted, done.stderr.splitlines()[0])

    def copy(self, name):
        (self.place / "tests/gpu").mkdir(parents=True)
        shutil.copy(ROOT / "tests/gpu" / name, self.place / "tests/gpu")


class Bundle(Scripts):
    def setUp(self):
        super().setUp()
        self.copy("bundle.sh")
        for file in ("build/cuda/switchyard", "build/cuda/test_kernels_reduce", "path/mpirun", "path/orted"):
            (self.place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROGRAM, self.place / file)
        (self.place / "openmpi").mkdir()
        (self.place / "path/ompi_info").write_text(f"#!/bin/sh\necho path:dir:{self.place}/openmpi\n", encoding="utf-8")
        (self.place / "path/ompi_info").chmod(0o755)

    def test_an_earlier_bundle_is_replaced_when_told_to(self):
        for name in ("bundle", "bundle.tar.xz"):
            bundle = self.place / name
            self.assertEqual(self.run_script("bundle.sh", bundle).returncode, 0)
            before = bundle.stat().st_ino
            self.refused("--overwrite", "bundle.sh", bundle)
            self.assertEqual(bundle.stat().st_ino, before)
            self.assertEqual(self.run_script("bundle.sh", "--overwrite", bundle).returncode, 0)
        self.assertTrue((self.place / "bundle/bin/test_kernels_reduce").exists())
        self.assertEqual(list(self.place.glob("*.tmp")), [])

    def test_nothing_else_is_replaced(self):
        (self.place / "mine/bin").mkdir(parents=True)
        shutil.copy(PROGRAM, self.place / "mine/bin/switchyard")
        (self.place / "mine.tar.xz").write_text("other", encoding="utf-8")
        (self.place / "link").symlink_to("mine")
        for name, wanted in [("mine", "no bundle"), ("mine.tar.xz", "no bundle"), ("link", "a link")]:
            self.refused(wanted, "bundle.sh", "--overwrite", self.place / name)
        self.assertTrue((self.place / "mine/bin/switchyard").exists())
        self.assertEqual((self.place / "mine.tar.xz").read_text(encoding="utf-8"), "other")

    def test_a_build_for_one_processor_is_refused(self):
        for folder in ("cuda", "cuda-without-nccl"):
            cache = self.place / "build" / folder / "CMakeCache.txt"
            cache.parent.mkdir(exist_ok=True)
            cache.write_text("SWITCHYARD_NATIVE:BOOL=ON\n", encoding="utf-8")
            done = self.run_script("bundle.sh", self.place / "bundle")
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(f"{cache.parent} is built for this machine's processor alone", done.stderr)
            cache.write_text("SWITCHYARD_NATIVE:BOOL=OFF\n", encoding="utf-8")
        self.assertFalse((self.place / "bundle").exists())
        self.assertEqual(self.run_script("bundle.sh", self.place / "bundle").returncode, 0)

    def test_a_program_without_nccl_goes_along(self):
        (self.place / "build/cuda-without-nccl").mkdir()
        shutil.copy(PROGRAM, self.place / "build/cuda-without-nccl/switchyard")
        self.assertEqual(self.run_script("bundle.sh", self.place / "bundle").returncode, 0)
        self.assertTrue((self.place / "bundle/bin/switchyard-without-nccl").exists())

    def test_mistakes_show_how_to_call_it(self):
        for words in ([], ["--without-cuda"], ["--quux", self.place / "new"], [self.place / "new", "--overwrite"]):
            self.refused("bundle.sh [--without-cuda] [--overwrite] PLACE", "bundle.sh", *words)
        self.assertFalse((self.place / "new").exists())


class Check(Scripts):
    def test_logs_replace_those_of_an_earlier_check_alone(self):
        self.copy("check.sh")
        out = self.place / "out"
        out.mkdir()
        words = ["check.sh", "--bundle", self.place, "--out", out]
        self.assertEqual(self.run_script(*words).returncode, 1)  # nothing can be checked here, which a summary says
        self.assertTrue((out / "summary.txt").exists())
        with tarfile.open(out / "logs.tar.gz") as logs:
            self.assertIn("logs/ranks.log", logs.getnames())
        self.assertEqual({file.name for file in out.iterdir()}, {"summary.txt", "logs.tar.gz"})
        self.refused("--overwrite", *words)
        self.assertEqual(self.run_script(*words, "--overwrite").returncode, 1)
        (out / "summary.txt").unlink()
        (out / "kernels.failed").write_text("mine", encoding="utf-8")
        self.refused("no check's summary.txt", *words, "--overwrite")
        self.assertTrue((out / "kernels.failed").exists())


    def test_it_says_in_words_that_there_is_no_gpu(self):
        self.copy("check.sh")
        nvidia_smi = self.place / "path/nvidia-smi"
        nvidia_smi.parent.mkdir()
        nvidia_smi.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
        nvidia_smi.chmod(0o755)
        done = self.run_script("check.sh")
        self.assertEqual((done.returncode, done.stderr), (1, "check.sh: nvidia-smi finds no GPU: nothing is built\n"))

    def test_mistakes_show_how_to_call_it(self):
        self.copy("check.sh")
        for words, wanted in [(["--only", "kernels,quux"], "--only quux"), (["--digests", "some"], "--digests some"),
                              (["--seconds", "many"], "--seconds many"), (["--quux"], "no such option")]:
            self.refused(wanted, "check.sh", *words)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
