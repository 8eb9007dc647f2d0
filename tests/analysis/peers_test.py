"""The comparison with PyTorch around the measurement: files, output, mistakes, what is missing. No PyTorch.

peers_test.py ROOT PROGRAM [unittest's options]
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT, PROGRAM = pathlib.Path(sys.argv.pop(1)), sys.argv.pop(1)
sys.path.insert(0, str(ROOT / "analysis/peers"))

import compare
import settings

TINY = """
[data]
kind = synthetic
synthetic_size = 8
[model]
layers = 1
width = 8   # two heads of four
heads = 2
patch = 4
[ffn]
hidden = 8
[train]
batch = 8
microbatch = 4
"""


class Settings(unittest.TestCase):
    def read(self, text, overrides=()):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "a.cfg")
            file.write_text(text, encoding="utf-8")
            return settings.read_settings([file], overrides)

    def test_files_comments_and_overrides(self):
        read = self.read(TINY, [("train.batch", "16"), ("compute.dtype", "bf16")])
        self.assertEqual((read["model.width"], read["train.batch"], read["compute.dtype"]), (8, 16, "bf16"))
        self.assertEqual(read["train.dropout"], settings.DEFAULTS["train.dropout"])
        self.assertEqual(settings.image_shape(read), (8, 8, 1, 10))

    def test_mistakes_are_named(self):
        for text, overrides, wanted in [
            ("[train]\nbatch = many\n", [], "train.batch = many"),
            ("[data]\nnormalize = yes\n", [], "data.normalize = yes"),
            ("batch = 8\n", [], "no section"),
            (TINY, [("train.bacth", "8")], "--train.bacth"),
        ]:
            with self.assertRaisesRegex(settings.SettingsError, wanted):
                self.read(text, overrides)
        with self.assertRaisesRegex(settings.SettingsError, "missing.cfg"):
            settings.read_settings(["missing.cfg"])

    def test_the_study_s_models(self):
        for name, kind, router in [("dense", "dense", "switch"), ("switch", "moe", "switch"),
                                   ("random", "moe", "random")]:
            read = settings.read_settings([ROOT / f"configs/vit-seed-{name}.cfg"])
            self.assertEqual((read["ffn.kind"], read["ffn.router"]), (kind, router))
            self.assertEqual((read["model.layers"], read["model.width"], read["train.batch"]), (12, 300, 128))
            self.assertEqual(settings.image_shape(read), (32, 32, 3, 10))

    def test_defaults_are_switchyard_s(self):
        text = subprocess.run([PROGRAM, "train", "--help"], check=True, capture_output=True, text=True).stdout
        defaults = dict(re.findall(r"^  --(\w+\.\w+) (\S+)$", text, re.MULTILINE))
        for key, value in settings.DEFAULTS.items():
            self.assertEqual(settings.parse(key, defaults[key], key), value, key)


class Comparison(unittest.TestCase):
    OUTPUT = ("vit, 12 layers\n\n                   seconds    images/s     GFLOP/s\n"
              "training step       4.2013        30.5       145.1\n"
              "products alone      3.1000        41.3       188.0\n")

    def test_the_rate_is_the_step_s(self):
        self.assertEqual(compare.switchyard_rate(self.OUTPUT), 30.5)

    def test_other_output_is_refused(self):
        for text in ["", self.OUTPUT.replace("training step ", "a step        "),
                     self.OUTPUT.replace("images/s", "rows/s"), self.OUTPUT.replace("30.5", "0.0"),
                     self.OUTPUT + self.OUTPUT]:
            with self.assertRaises(compare.Failed):
                compare.switchyard_rate(text)

    def test_the_program_s_own_output_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "tiny.cfg")
            file.write_text(TINY, encoding="utf-8")
            words = ["bench", "step", "--steps", 2, "--config", file]
            output = compare.output_of([ROOT / "scripts/mpirun.sh", 2, PROGRAM, *words])
            self.assertGreater(compare.switchyard_rate(output), 0)

    def test_a_program_that_fails_ends_the_comparison(self):
        with self.assertRaisesRegex(compare.Failed, "exit code 3.*\n.*reason"):
            compare.output_of(["sh", "-c", "echo reason >&2; exit 3"])
        with self.assertRaisesRegex(compare.Failed, "does not start"):
            compare.output_of([pathlib.Path("/nowhere/python")])
        arguments = compare.parse_arguments(["--python", "/bin/echo"])
        with self.assertRaisesRegex(compare.Failed, "no line of JSON"):
            compare.run_twin(arguments, [])

    def test_the_ratio_is_the_median_of_the_rounds(self):
        row = compare.row_of("dense", "fp32", [30.0, 20.0, 40.0], [10.0, 10.0, 10.0])
        self.assertEqual(row, ["dense", "fp32", "30.0", "10.0", "3.00", "2.00 to 4.00"])
        for markdown in (False, True):
            self.assertLessEqual(max(map(len, compare.table([row], markdown))), 100)

    def test_options_after_two_dashes_are_the_twin_s(self):
        arguments = compare.parse_arguments(["--rounds", "2", "--", "--compile"])
        self.assertEqual((arguments.rounds, arguments.twin_options), (2, ["--compile"]))

    def test_mistakes_are_one_line_that_says_what_there_is(self):
        for words, parts in [(["--models", "vit"], ["vit", "dense", "random", "switch"]),
                             (["--dtypes", "fp16"], ["fp16", "fp32", "bf16"]), (["--rounds", "0"], ["at least 1"])]:
            with self.assertRaises(compare.Misused) as caught:
                compare.parse_arguments(words)
            for part in parts:
                self.assertIn(part, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_what_is_missing_is_said_before_the_first_run(self):
        here = ["--build", str(pathlib.Path(PROGRAM).parent)]
        for words, parts in [(["--build", "/nowhere"], ["/nowhere/switchyard", "cmake --build"]),
                             ([*here, "--python", "/nowhere/python"], ["/nowhere/python", "analysis/peers/setup.sh"]),
                             ([*here, "--python", "/bin/false"], ["PyTorch", "analysis/peers/setup.sh"])]:
            with self.assertRaises(compare.Misused) as caught:
                compare.require_programs(compare.parse_arguments(words))
            for part in parts:
                self.assertIn(part, str(caught.exception))

    def test_the_twin_says_that_it_needs_pytorch(self):
        without = "import runpy, sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); " \
                  "runpy.run_path(sys.argv[1] + '/twin.py')"
        done = subprocess.run([sys.executable, "-c", without, ROOT / "analysis/peers"], check=False,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^twin.py: .*PyTorch.*analysis/peers/setup.sh.*\n$")

    def test_help_lists_the_twin_s_options(self):
        twin = (ROOT / "analysis/peers/twin.py").read_text(encoding="utf-8")
        own = {"config", "steps", "threads"}  # which compare.py sets
        options = set(re.findall(r'add_argument\("--([\w-]+)"', twin)) - own
        self.assertGreater(len(options), 5)
        for option in options:
            self.assertRegex(compare.TWIN_OPTIONS, rf"--(\[no-\])?{option} ")


class Setup(unittest.TestCase):
    """setup.sh in a folder of its own, with a python3 that makes an environment at once."""

    PYTHON = """#!/bin/sh
case "$1 $2" in "-m venv") mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python" &&
  echo "#!$PWD/$3/bin/python" > "$3/bin/pip" ;;
"-m pip") exit $PIP_EXIT ;; esac
"""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for path in ("analysis/peers", "bin", "build/peers-venv", "scripts"):
            (self.folder / path).mkdir(parents=True)
        for path in ("analysis/peers/setup.sh", "scripts/python.sh"):
            shutil.copy(ROOT / path, self.folder / path)
        (self.folder / "bin/python3").write_text(self.PYTHON, encoding="utf-8")
        (self.folder / "bin/python3").chmod(0o755)
        (self.folder / "build/peers-venv/old").touch()

    def run_setup(self, *words, pip_exit=0):
        set_up = {**os.environ, "PATH": f"{self.folder}/bin:/usr/bin:/bin", "PIP_EXIT": str(pip_exit)}
        return subprocess.run([self.folder / "analysis/peers/setup.sh", *words], check=False, capture_output=True,
                              text=True, env=set_up)

    def environments(self):
        return sorted(str(file.relative_to(self.folder / "build")) for file in (self.folder / "build").glob("*/*"))

    def test_help_and_unknown_options_touch_nothing(self):
        done = self.run_setup("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("setup.sh [--help] [REQUIREMENT...]", done.stdout)
        done = self.run_setup("torch", "--quux")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--quux", done.stderr)
        self.assertEqual(self.environments(), ["peers-venv/old"])

    def test_an_environment_is_replaced_by_one_that_works(self):
        self.assertEqual(self.run_setup("torch", pip_exit=5).returncode, 5)
        self.assertEqual(self.environments(), ["peers-venv/old"])
        done = self.run_setup("torch")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.environments(), ["peers-venv/bin", "peers-venv/pyvenv.cfg"])
        self.assertEqual((self.folder / "build/peers-venv/bin/pip").read_text(encoding="utf-8"),
                         f"#!{self.folder}/build/peers-venv/bin/python\n")


class Mpirun(unittest.TestCase):
    def test_what_cannot_run_is_said(self):
        with tempfile.NamedTemporaryFile() as file:
            for words, parts in [(["2", "/nowhere/switchyard"], ["/nowhere/switchyard", "no such", "cmake --build"]),
                                 (["2", file.name], [file.name, "not a program", "cmake --build"]),
                                 (["0", "true"], ["RANKS = 0", "at least 1"]),
                                 (["two", "true"], ["RANKS = two", "at least 1"])]:
                done = subprocess.run([ROOT / "scripts/mpirun.sh", *words], check=False, capture_output=True, text=True)
                self.assertEqual(done.returncode, 2)
                for part in parts:
                    self.assertIn(part, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
