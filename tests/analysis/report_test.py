"""switchyard-report on small runs of the program's: every section of its page, what it refuses, what it replaces.

report_test.py ROOT PROGRAM [unittest's options]; ends with 77 (skipped) where a library is missing.
"""

import contextlib
import io
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import unittest

from support import ROOT, bench, bench_exchange, run_study, train  # first: it looks for the libraries

SCRIPT = ROOT / "analysis/switchyard-report"


def report(folder, output, *words):
    return subprocess.run([sys.executable, "-B", SCRIPT, folder, "--output", output, *words], check=False,
                          capture_output=True, text=True)


class InFolder(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)


class Sections(InFolder):
    def text_of(self, folder):
        """(the page, what was printed)"""
        page = folder / "report.html"
        done = report(folder, page)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = page.read_text(encoding="utf-8")
        self.assertEqual(text.count('src="data:image/png;base64,'), text.count("<img"))
        self.assertNotRegex(text, r"(src|href)=.https?:")
        return text, done

    def test_the_study_routing_scaling_and_mixtures(self):
        folder = self.folder / "all"
        for ranks in (1, 2):
            for batch in {16, 16 * ranks}:
                train(folder, f"ranks{ranks}-batch{batch}", "--run.epochs", 2, "--train.batch", batch,
                      "--parallel.experts", ranks, ranks=ranks)
            bench_exchange(folder / f"exchange-{2 * ranks}.h5", 2 * ranks)
        train(folder, "dense", "--ffn.kind", "dense")
        train(folder, "collapse-plain", config=ROOT / "configs/collapse/plain.cfg")
        run_study(folder, "shazeer-table6", "--ffn.importance_loss", 0.1, "--run.seed", "1, 2", "--data.limit", 256,
                  "--run.epochs", 1)
        run_study(folder, "chen", "--data.clusters_setting", 1, "--ffn.kind", "moe", "--ffn.activation", "cube",
                  "--run.seed", "1, 2", "--data.limit", 320, "--run.epochs", 2, "--train.batch", 320,
                  "--train.microbatch", 80)
        (folder / "cut").mkdir()
        (folder / "cut/results.h5").write_bytes(b"cut")
        text, done = self.text_of(folder)
        self.assertIn(f"{folder}/report.html: 9 runs", done.stdout)
        self.assertIn("cut/results.h5: is not an HDF5 file", done.stderr)
        # the newest run, accuracy, load, that of collapse, collapse, strong, weak, model, extrapolation
        self.assertEqual(text.count("<img"), 9)
        for part in ("12,798,490", "strong scaling, switch, batch 16", "MOEvit rtx_2", "ranks2-batch32", "not an HDF5",
                     "collapse-plain (switch): collapsed", "dispatch entropy, nats", "mixture, cubic", "99.46 +- 0.55",
                     "CV(importance), here"):
            self.assertIn(part, text)
        self.assertRegex(text, r"(?s)<td>dense</td>\s*<td>finished</td>\s*<td>dense</td>\s*<td>8</td>(\s*<td>-</td>){2}")

    def test_trees(self):
        folder = self.folder / "trees"
        run_study(folder, "fff-table1", "--ffn.hidden", 16, "--ffn.kind", "dense, fff", "--ffn.leaf", "1, 8",
                  "--run.seed", "1, 2", "--run.epochs", 2, "--data.limit", 512)
        bench("inference", folder / "inference.h5", "--model.kind", "mlp", "--ffn.hidden", 16, "--leaves", 8, "--batches",
              "1,16", "--data.kind", "fashion-mnist")
        text, _ = self.text_of(folder)
        self.assertEqual(text.count("<img"), 5)  # the newest run, accuracy by leaf and by time, speed, hardening
        for part in ("ffn.leaf", "ffn.depth", "M_A, %", "G_A, %", "Fast feedforward networks"):
            self.assertIn(part, text)
        for part in ("The study, repeated", "ffn.router", "experts</th>", "learned gate"):
            self.assertNotIn(part, text)


class Files(InFolder):
    def test_it_says_what_is_missing(self):
        (self.folder / "empty").mkdir()
        for folder, wanted in [(self.folder / "none", "no such folder"), (self.folder / "empty", "no results.h5")]:
            done = report(folder, self.folder / "missing.html")
            self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
            self.assertRegex(done.stderr, f"switchyard-report: {folder}: {wanted}")

    def test_it_replaces_only_its_own_and_when_told_to(self):
        folder = self.folder / "one"
        train(folder, "run")
        page, figures, own = folder / "report.html", folder / "figures", folder / "own.html"
        self.assertEqual(report(folder, page, "--figures", figures).returncode, 0)
        first, drawn = page.read_bytes(), sorted(figures.iterdir())
        self.assertGreater(len(drawn), 0)
        own.write_text("<!doctype html>\n<p>of the user's own</p>\n", encoding="utf-8")
        (folder / "link.html").symlink_to(page)
        script = runpy.run_path(str(SCRIPT), run_name="switchyard-report")
        for check, path, overwrite, wanted in [
                ("output", page, False, "is there already.*--overwrite"),
                ("output", own, False, "is there already.*--overwrite"), ("output", own, True, "is not a report"),
                ("output", folder / "link.html", True, "a link"), ("output", folder, True, "is a folder"),
                ("output", folder / "none/report.html", False, "cannot write"),
                ("figures", figures, False, "not empty.*--overwrite"), ("figures", page, True, "is not a folder")]:
            with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
                script[f"check_{check}"](path, overwrite)
            self.assertEqual(ended.exception.code, 2)
            self.assertRegex(said.getvalue(), f"^switchyard-report: --{check} {path}: .*{wanted}.*\n$")
        self.assertEqual(report(folder, page).returncode, 2)
        self.assertEqual(page.read_bytes(), first)
        page.write_bytes(first[:200])  # as an interrupted copy leaves one
        self.assertEqual(report(folder, page, "--overwrite", "--figures", figures).returncode, 0)
        self.assertEqual((page.read_bytes()[-20:], sorted(figures.iterdir())), (first[-20:], drawn))
        self.assertEqual(list(folder.glob("*.tmp")), [])


if __name__ == "__main__":
    unittest.main(argv=["report_test.py", "-v", *sys.argv[3:]])
