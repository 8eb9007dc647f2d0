"""analysis/switchyard_results.py on files that the program wrote.

results_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import fcntl
import pathlib
import re
import shutil
import tempfile
import time
import unittest

from support import PROGRAM, ROOT, bench_exchange, start, train  # first: it looks for the libraries
import h5py
import numpy as np
import pandas as pd
import switchyard_compare as compare
import switchyard_loggp as loggp
import switchyard_results as results
import switchyard_scaling as scaling
import switchyard_schema as schema


class Schema(unittest.TestCase):
    HEADER = (ROOT / "lib/io/schema.hpp").read_text(encoding="utf-8")

    def test_every_path_with_units_and_first_version_both_ways(self):
        code = re.sub(r"//.*", "", self.HEADER)
        named = {path: (units, int(since or 1)) for path, units, since in
                 re.findall(r'\{"(\w+/\w+)",\s*"([^"]*)"(?:,\s*(\d+))?\}', code)}
        named |= {path: ("steps", 1) for path in re.findall(r'kStepUnits|"(\w+/step)"', code) if path}
        named |= {path: ("", 1) for path in re.findall(r'kStudy\w+ = "(table/\w+)"', code)}
        self.assertEqual(set(re.findall(r'"([a-z]+/\w+)"', code)), set(named))
        module = {**schema.STEPS, **schema.EVALUATIONS, **schema.ROUTING_STEP, **schema.ROUTING_EXPERT,
                  **schema.ROUTING_LAYER, **schema.TREES_STEP, **schema.TREES_NODE, **schema.TREES_LEAF, **schema.BENCH,
                  **schema.STUDY}
        self.assertEqual(module, named)

    def test_names_and_versions(self):
        for name, value in [("kResultsFormat", schema.RESULTS_FORMAT), ("kBenchFormat", schema.BENCH_FORMAT),
                            ("kCheckpointFormat", schema.CHECKPOINT_FORMAT), ("kStudyFormat", schema.STUDY_FORMAT),
                            ("kConfig", schema.CONFIG), ("kMixtureBlocks", schema.MIXTURE_BLOCKS),
                            ("kTreeBlocks", schema.TREE_BLOCKS), ("kLibraries", schema.LIBRARIES),
                            ("kDevice", schema.DEVICE), ("kProductAlgorithms", schema.PRODUCT_ALGORITHMS),
                            *zip(("kMemorisationAccuracy", "kMemorisationEpoch", "kGeneralisationAccuracy",
                                  "kGeneralisationEpoch"), schema.SCORES)]:
            self.assertIn(f'{name} = "{value}"', self.HEADER)
        for name, value in [("kResultsVersion", schema.RESULTS_VERSION), ("kBenchVersion", schema.BENCH_VERSION),
                            ("kStudyVersion", schema.STUDY_VERSION)]:
            self.assertIn(f"{name} = {value};", self.HEADER)


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for seed in (1, 2):
            cls.file = train(cls.folder / "study", f"switch-seed{seed}", "--run.seed", seed, "--ffn.every", 2)
            train(cls.folder / "study", f"dense-seed{seed}", "--run.seed", seed, "--ffn.kind", "dense")

    def copy(self, edit):
        path = pathlib.Path(tempfile.mkdtemp(dir=self.folder), "copy.h5")
        shutil.copy(self.file, path)
        with h5py.File(path, "r+") as file:
            edit(file)
        return path

    def test_a_run_is_what_the_file_says(self):
        run = results.open_run(self.file)
        with h5py.File(self.file) as file:
            np.testing.assert_array_equal(run.steps()["loss"], file["steps/loss"][:])
            np.testing.assert_array_equal(run.evaluations()["accuracy"], file["evaluations/accuracy"][:])
            routing = run.routing()
            self.assertEqual(list(routing["block"].unique()), [1])  # the second block alone has a mixture
            np.testing.assert_array_equal(routing["load"], file["routing/load"][:].reshape(-1))
            one = routing[(routing["step"] == 3) & (routing["expert"] == 2)]
            self.assertEqual(one["load"].item(), file["routing/load"][2, 0, 2])
            self.assertAlmostEqual(routing.groupby("step")["share"].mean().max(), 1, 6)
            np.testing.assert_array_equal(run.routing_layers()["load_cv"], file["routing/load_cv"][:].reshape(-1))
        self.assertEqual((run.config["ffn.experts"], run.config["train.dropout"], run.config["data.flip"],
                          run.config["data.kind"]), (4, 0, False, "synthetic"))

    def test_trees_and_scores(self):
        run = results.open_run(train(self.folder / "trees", "fff", "--ffn.kind", "fff", "--ffn.depth", 2, "--ffn.leaf",
                                     4, "--ffn.every", 2, "--data.validation", 0.25, "--run.measure_training", "true"))
        with h5py.File(run.path) as file:
            self.assertEqual(file["trees/entropy"].shape[1:], (1, 3))
            nodes, leaves = run.tree_nodes(), run.tree_leaves()
            np.testing.assert_array_equal(nodes["entropy"], file["trees/entropy"][:].reshape(-1))
            np.testing.assert_array_equal(leaves["share"], file["trees/share"][:].reshape(-1))
        self.assertEqual((set(leaves["block"]), set(nodes["node"]), set(leaves["leaf"])), ({1}, {0, 1, 2}, {0, 1, 2, 3}))
        np.testing.assert_allclose(leaves.groupby("step")["share"].sum(), 1, rtol=1e-5)
        self.assertTrue(run.routing().empty and (run.steps()["hardening_loss"] > 0).all())
        self.assertTrue(run.evaluations()[["validation_loss", "training_loss"]].notna().all(axis=None))
        scores = results.table_of_runs([run]).iloc[0]
        last = run.evaluations().iloc[-1]
        self.assertEqual((scores["memorisation_accuracy"], scores["generalisation_accuracy"]),
                         (last["training_accuracy"], last["accuracy"]))
        self.assertEqual((scores["memorisation_epoch"], scores["generalisation_epoch"]), (1, 1))
        plain = results.table_of_runs([results.open_run(self.file)]).iloc[0]
        self.assertTrue(np.isnan(plain["memorisation_accuracy"]) and np.isnan(plain["generalisation_epoch"]))

    def test_a_study_becomes_one_table(self):
        table = results.table_of_runs(results.open_runs(self.folder / "study"))
        self.assertEqual(sorted(table["run"]), ["dense-seed1", "dense-seed2", "switch-seed1", "switch-seed2"])
        self.assertEqual(set(table["state"]), {"finished"})
        self.assertTrue((table["seconds_per_epoch"] > 0).all() and table["test_accuracy"].between(0, 1).all())
        self.assertEqual(compare.varying_keys(table), ["ffn.kind", "ffn.every"])
        runs = results.open_runs([self.file, self.folder / "study/dense-seed1"])
        self.assertEqual(set(results.steps_of(runs)["run"]), {"switch-seed2", "dense-seed1"})
        self.assertEqual(set(results.routing_of(runs)["run"]), {"switch-seed2"})

    def test_other_data_make_other_results(self):
        table = results.table_of_runs(results.open_runs(self.folder / "study"))
        (data,) = set(table[compare.DATA])
        self.assertRegex(data, "^[0-9a-f]{12} [0-9a-f]{12}$")
        dense = table[table["ffn.kind"] == "dense"]
        other = dense.assign(**{compare.DATA: "other"})
        both = pd.concat([dense, other])
        self.assertEqual(compare.varying_keys(both), [compare.DATA])
        self.assertEqual(compare.varying_keys(pd.concat([dense, other.assign(**{"data.limit": 5})])), ["data.limit"])
        self.assertEqual(len(compare.without_repeats(both)), 4)

    def test_runs_of_one_name_are_told_apart(self):
        other = train(self.folder / "other", "switch-seed2", "--run.seed", 2, "--ffn.every", 2)
        names = [run.name for run in results.open_runs([self.file, other])]
        self.assertEqual(names, ["study/switch-seed2", "other/switch-seed2"])

    def test_links_to_a_run_and_copies_of_it_are_not_further_runs(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        run = shutil.copytree(self.file.parent, folder / "run")
        (folder / "latest").symlink_to("run")
        (folder / "above").symlink_to("..")
        (folder / "named").mkdir()
        (folder / "named/results.h5").hardlink_to(run / "results.h5")
        problems = []
        (one,) = results.open_runs([folder, run, folder / "latest"], problems)
        self.assertEqual((one.path, problems), (folder / "named/results.h5", []))
        shutil.copytree(run, folder / "saved")
        (one,) = results.open_runs(folder, problems)
        self.assertEqual(problems, [f"{folder}/saved/results.h5: is a copy of {one.path}, which counts once"])
        self.assertEqual(len(results.open_runs(folder)), 1)

    def test_a_run_that_was_made_again_is_one_seed_and_two_times(self):
        again = train(self.folder / "again", "same", "--run.seed", 2, "--ffn.every", 2)
        runs = [*results.open_runs([self.file, again]), results.open_run(self.file)]
        self.assertEqual(runs[0].attributes["digest"], runs[1].attributes["digest"])
        row = compare.summarize(results.table_of_runs(runs), ["ffn.router"], ["test_accuracy", "seconds_per_epoch"]).iloc[0]
        self.assertEqual((row["test_accuracy_n"], row["seconds_per_epoch_n"]), (1, 2))
        self.assertTrue(np.isnan(row["test_accuracy_half"]))

    def test_files_that_cannot_be_read_say_why(self):
        def cut(size):
            path = pathlib.Path(tempfile.mkdtemp(dir=self.folder), "cut.h5")
            path.write_bytes(self.file.read_bytes()[:size])
            return path

        def mark_open(path):  # as a killed writer leaves it
            content = bytearray(path.read_bytes())
            content[11] |= 5
            path.write_bytes(content)
            return path

        foreign = self.folder / "foreign.h5"
        h5py.File(foreign, "w").close()
        text = self.folder / "text.h5"
        text.write_text("not HDF5")
        checkpoint = next(self.file.parent.glob("checkpoint-*.h5"))
        half = self.file.stat().st_size // 2
        whole = self.file.stat().st_size
        for path, wanted in [(self.folder / "none.h5", "no such file"), (text, "not an HDF5 file"),
                             (cut(half), "cut short"), (mark_open(cut(half)), "cut short"), (cut(20), "cut short"),
                             (mark_open(cut(whole)), "is damaged"),  # its checksum
                             (foreign, "another program"), (checkpoint, "is a checkpoint, not results"),
                             (self.copy(lambda file: file.attrs.modify("schema_version", 99)), "newer program.* 99"),
                             (self.copy(lambda file: file.__delitem__("config")), "is damaged")]:
            with self.assertRaisesRegex(results.ResultsError, f"{re.escape(str(path))}.*{wanted}") as caught:
                results.open_run(path)
            self.assertNotIn("\n", str(caught.exception))
        run = results.open_run(self.copy(lambda file: file.__delitem__("steps/loss")))
        with self.assertRaisesRegex(results.ResultsError, "steps/loss"):
            run.steps()
        with self.assertRaisesRegex(results.ResultsError, "no results.h5"):
            results.open_runs(tempfile.mkdtemp(dir=self.folder))
        problems = []
        self.assertEqual(len(results.open_runs([self.file, text, run.path], problems)), 1)
        self.assertRegex(problems[0], "text.h5: is not")
        self.assertRegex(problems[1], "copy.h5: is damaged or cut short at steps/loss")

    def test_damage_anywhere_ends_in_an_error(self):
        content = self.file.read_bytes()
        path = pathlib.Path(tempfile.mkdtemp(dir=self.folder), "results.h5")
        for place in [*range(48, 16000, 80), *range(16000, len(content), len(content) // 50)]:
            path.write_bytes(content[:place] + bytes(byte ^ 255 for byte in content[place:place + 64]) +
                             content[place + 64:])
            results.open_runs(path, problems := [])
            self.assertLessEqual(len(problems), 1)

    def test_a_file_is_read_that_cannot_be_locked(self):
        path = self.copy(lambda file: None)
        with open(path, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertGreater(len(results.open_run(path).steps()), 0)
        with h5py.File(path) as own:  # with locks
            self.assertEqual(len(results.open_run(path).steps()), len(own["steps/step"]))

    def test_an_older_file_lacks_what_came_later(self):
        def older(file):
            file.attrs.modify("schema_version", 1)
            del file["steps/z_loss"], file["routing/weight"], file["evaluations/training_loss"]

        run = results.open_run(self.copy(older))
        self.assertNotIn("z_loss", run.steps())
        self.assertNotIn("weight", run.routing())
        self.assertNotIn("training_loss", run.evaluations())

    def test_a_row_that_was_not_finished_does_not_count(self):
        def unfinished(file):
            file["steps/step"][-1] = 0

        rows = len(results.open_run(self.file).steps())
        self.assertEqual(len(results.open_run(self.copy(unfinished)).steps()), rows - 1)

    def test_a_run_is_read_while_it_is_written(self):
        job = start(self.folder, "live", "--run.epochs", 100000)
        try:
            path, rows, end = self.folder / "live/results.h5", [], time.monotonic() + 30
            while len(rows) < 2 and time.monotonic() < end:
                try:
                    run = results.open_run(path)
                    rows += [len(run.steps())] if len(run.steps()) > max(rows, default=0) else []
                except results.ResultsError:
                    pass  # not there yet
                time.sleep(0.2)
            self.assertEqual(len(rows), 2)
            self.assertEqual(results.state_of(run), "running")
            self.assertEqual(results.table_of_runs([run])["state"].item(), "running")
        finally:
            job.terminate()
            job.wait()
        self.assertEqual(results.state_of(results.open_run(path)), "stopped")

    def test_a_step_s_parameters_are_parted_as_in_the_program(self):
        row = scaling.scaling_table([results.open_run(self.file)]).iloc[0]
        step = loggp.step_of(row, cores=1)
        self.assertEqual((step.microbatches, step.tokens, step.mixtures, step.visits), (4, 4 * 5, 1, 1))
        self.assertEqual(step.expert, 4 * (8 * 8 + 8 + 8 * 8 + 8))
        self.assertEqual(step.dense + step.expert, row["parameters_stored"])
        self.assertAlmostEqual(step.compute * 4, row["compute"])

    def test_a_benchmark(self):
        folder = self.folder / "benches"
        folder.mkdir()
        table, attributes = results.open_bench(bench_exchange(folder / "exchange.h5", 2))
        shutil.copy(folder / "exchange.h5", folder / "saved.h5")
        (folder / "latest.h5").symlink_to("exchange.h5")
        (folder / "again").symlink_to(folder)
        self.assertEqual([file for file, *_ in results.open_benches(folder, "exchange")], [folder / "exchange.h5"])
        self.assertEqual((attributes["ranks"], attributes["config"]["model.width"]), ("2", 8))
        self.assertEqual(set(table["load"]), {"even", "half to one"})
        self.assertTrue((table["seconds"] > 0).all())
        with self.assertRaisesRegex(results.ResultsError, "is results of a run, not a benchmark"):
            results.open_bench(self.file)


if __name__ == "__main__":
    unittest.main(argv=["results_test.py", "-v"])
