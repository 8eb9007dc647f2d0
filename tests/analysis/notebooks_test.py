"""The notebooks run from top to bottom on small runs of the program's, say and draw what they should.

notebooks_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import os
import pathlib
import tempfile
import unittest
import unittest.mock

from support import ROOT, bench, bench_exchange, require, run_study, start, train  # first: it looks for the libraries

require("nbclient", "nbformat", "ipykernel")
import nbclient
import nbformat
import notebooks


def execute(name, **environment):
    """(all words, number of figures) of a notebook's outputs."""
    environment = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", **{key: str(value) for key, value in environment.items()}}
    book = nbformat.read(ROOT / f"analysis/{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(book, timeout=60, kernel_name="python3",
                                     resources={"metadata": {"path": str(ROOT / "analysis")}})
    book.cells[1]["source"] += "\npd.options.display.width = 400"  # of tables as text
    with unittest.mock.patch.dict(os.environ, environment):
        client.execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    words = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    return words, sum("image/png" in output.get("data", {}) for output in outputs)


class Notebooks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def test_they_are_what_the_builder_writes_without_outputs(self):
        files = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "analysis").glob("*.ipynb")}
        self.assertEqual(files, {name: notebooks.notebook(text) for name, text in notebooks.NOTEBOOKS.items()})
        for text in files.values():
            nbformat.validate(nbformat.reads(text, as_version=4))

    def test_run_is_followed_while_it_trains(self):
        job = start(self.folder / "live", "live", "--run.epochs", 100000)
        try:
            words, figures = "", 0
            while "step" not in words:  # the program may not have begun
                try:
                    words, figures = execute("run", SWITCHYARD_RUNS=self.folder / "live", SWITCHYARD_WATCH=3,
                                             SWITCHYARD_EVERY=1)
                except nbclient.exceptions.CellExecutionError as error:
                    self.assertRegex(str(error), "no results.h5|no such file|cut short")
                self.assertIsNone(job.poll())
        finally:
            job.terminate()
            job.wait()
        self.assertIn("live: running, step", words)
        self.assertGreaterEqual(figures, 2)
        words, figures = execute("run", SWITCHYARD_RUN=self.folder / "live/live")
        self.assertIn("live: stopped, step", words)

    def test_routing_tells_collapse_from_its_cures(self):
        for cure in ("plain", "balance"):
            train(self.folder / "collapse", f"collapse-{cure}", config=ROOT / f"configs/collapse/{cure}.cfg")
        words, figures = execute("routing", SWITCHYARD_RUNS=self.folder / "collapse")
        self.assertIn("collapse-plain (switch): collapsed", words)
        self.assertRegex(words, r"collapse-balance \(switch\): (balanced|uneven)")
        self.assertEqual(figures, 3)
        with self.assertRaisesRegex(nbclient.exceptions.CellExecutionError, "no results.h5"):
            execute("routing", SWITCHYARD_RUNS=tempfile.mkdtemp(dir=self.folder))

    def test_replication_sets_measured_beside_published(self):
        for seed in (1, 2):
            for name, keys in [("dense", ["--ffn.kind", "dense"]), ("switch", []),
                               ("random", ["--ffn.router", "random", "--ffn.inference", "average"])]:
                train(self.folder / "study", f"{name}-seed{seed}", "--run.seed", seed, "--run.epochs", 2, *keys)
        (self.folder / "study/cut").mkdir()
        (self.folder / "study/cut/results.h5").write_bytes(b"cut")
        words, figures = execute("replication", SWITCHYARD_RUNS=self.folder / "study")
        self.assertIn("6 finished runs, 2 seeds, on synthetic, 2 epochs", words)
        self.assertIn("cut/results.h5: is not an HDF5 file", words)
        for pattern in [r"ViT +1 +12,798,490 +[\d,]+ ", r"MoE & random routing +4 +72.18 +[\d.]+ ± [\d.]+ \(2\)",
                        r"MoE & random routing +128 +62.01 +-", r"random routing is as accurate as learned +16 ",
                        r"MOEvit rtx_2 .* 72.04 ", "two of the README's three rows have no source"]:
            self.assertRegex(words, pattern)
        self.assertEqual(figures, 1)

    def test_trees_stand_beside_their_paper(self):
        folder = self.folder / "trees"
        run_study(folder, "fff-table1", "--ffn.hidden", 16, "--ffn.kind", "dense, fff", "--ffn.leaf", "1, 8",
                  "--run.seed", "1, 2", "--run.epochs", 2, "--data.limit", 512)
        words, figures = execute("fff", SWITCHYARD_RUNS=folder)
        for pattern in [r"16 +dense +91.0 +[\d.]+; [\d.]+ ± [\d.]+ \(2\) +86.4 ", r"16 +8 +86.7 ",
                        "Table 1: .*6 runs of configs/studies/fff-table1.cfg, but with run.epochs 2, data.limit 512\\.",
                        "Table 2: .*: no finished runs of configs/studies/fff-table2.cfg\\.",
                        "no file of `bench inference --output` at these training widths"]:
            self.assertRegex(words, pattern)
        self.assertEqual((figures, words.count("Empty DataFrame")), (2, 0))
        bench("inference", folder / "inference.h5", "--model.kind", "mlp", "--ffn.hidden", 16, "--leaves", 8, "--batches",
              "1,16", "--data.kind", "fashion-mnist")
        words, figures = execute("fff", SWITCHYARD_RUNS=folder)
        self.assertRegex(words, r"inference.h5 +mlp +16 +fff +8 +16 ")
        self.assertEqual(figures, 4)

    def test_mixtures_stand_beside_their_paper(self):
        folder = self.folder / "mixtures"
        run_study(folder, "shazeer-table6", "--ffn.importance_loss", 0.1, "--run.seed", "1, 2", "--data.limit", 256,
                  "--run.epochs", 1)
        run_study(folder, "chen", "--data.clusters_setting", 1, "--ffn.kind", "moe", "--ffn.activation", "cube",
                  "--run.seed", "1, 2", "--data.limit", 320, "--run.epochs", 2, "--train.batch", 320,
                  "--train.microbatch", 80)
        train(folder, "other", "--ffn.router", "noisy_top_k")
        words, _ = execute("mixtures", SWITCHYARD_RUNS=folder)
        self.assertRegex(words, r"1 +mixture, cubic +2 +99.46 \+- 0.55 +[\d.]+ \+- [\d.]+ +0.098 ")
        self.assertRegex(words, r"0.1 +0.1 +0.06 +[\d.]+ ± [\d.]+ \(2\) +0.05 ")
        self.assertIn("chen.cfg, but with run.epochs 2, data.limit 320, train.batch 320, train.microbatch 80.", words)

    def test_scaling_fits_and_extrapolates(self):
        folder = self.folder / "scaling"
        for ranks in (1, 2):
            for batch in {16, 16 * ranks}:
                train(folder, f"ranks{ranks}-batch{batch}", "--run.epochs", 2, "--train.batch", batch,
                      "--parallel.experts", ranks, ranks=ranks)
            bench_exchange(folder / f"exchange-{2 * ranks}.h5", 2 * ranks)
        (folder / "cut").mkdir()
        (folder / "cut/results.h5").write_bytes(b"cut")
        words, figures = execute("scaling", SWITCHYARD_RUNS=folder, SWITCHYARD_CORES=2)
        for pattern in [r"fitted to exchange-2.h5, exchange-4.h5 .*L \+ 2 o = [\d.]+ us",
                        "4 ranks: error.*ranks take turns on 2 cores",
                        "strong scaling, switch, batch 16", "weak scaling, switch, 16 samples a rank",
                        "Assumed:\n- InfiniBand HDR", r"\b1024 +4 "]:
            self.assertRegex(words, pattern)
        self.assertEqual(figures, 4)


if __name__ == "__main__":
    unittest.main(argv=["notebooks_test.py", "-v"])
