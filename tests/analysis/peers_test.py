"""What the comparison with PyTorch reads: configuration files and what `switchyard bench step` prints. No PyTorch.

peers_test.py ROOT PROGRAM [unittest's options]
"""

import pathlib
import re
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


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
