"""analysis/switchyard_results.py and switchyard_compare.py on files that the program wrote.

results_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import pathlib
import re
import shutil
import struct
import tempfile
import time
import unittest

from support import PROGRAM, ROOT, bench_exchange, start, train  # first: it looks for the libraries
import h5py
import numpy as np
import pandas as pd
import switchyard_compare as compare
import switchyard_loggp as loggp
import switchyard_replication as replication
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
                  **schema.ROUTING_LAYER, **schema.BENCH, **schema.STUDY}
        self.assertEqual(module, named)

    def test_names_and_versions(self):
        for name, value in [("kResultsFormat", schema.RESULTS_FORMAT), ("kBenchFormat", schema.BENCH_FORMAT),
                            ("kCheckpointFormat", schema.CHECKPOINT_FORMAT), ("kConfig", schema.CONFIG),
                            ("kMixtureBlocks", schema.MIXTURE_BLOCKS)]:
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

    def test_a_study_becomes_one_table(self):
        table = results.table_of_runs(results.open_runs(self.folder / "study"))
        self.assertEqual(sorted(table["run"]), ["dense-seed1", "dense-seed2", "switch-seed1", "switch-seed2"])
        self.assertEqual(set(table["state"]), {"finished"})
        self.assertTrue((table["seconds_per_epoch"] > 0).all() and table["test_accuracy"].between(0, 1).all())
        self.assertEqual(compare.varying_keys(table), ["ffn.kind", "ffn.every"])
        runs = results.open_runs([self.file, self.folder / "study/dense-seed1"])
        self.assertEqual(set(results.steps_of(runs)["run"]), {"switch-seed2", "dense-seed1"})
        self.assertEqual(set(results.routing_of(runs)["run"]), {"switch-seed2"})

    def test_runs_of_one_name_are_told_apart(self):
        other = self.folder / "other/switch-seed2"
        other.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, other.parent)
        shutil.copy(self.file, other)
        names = [run.name for run in results.open_runs([self.file, other])]
        self.assertEqual(names, ["study/switch-seed2", "other/switch-seed2"])

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
        for path, wanted in [(self.folder / "none.h5", "no such file"), (text, "not an HDF5 file"),
                             (cut(half), "cut short"), (mark_open(cut(half)), "cut short"), (cut(20), "cut short"),
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
        self.assertEqual(len(results.open_runs([self.file, text], problems)), 1)
        self.assertRegex(problems[0], "text.h5: is not")

    def test_an_older_file_lacks_what_came_later(self):
        def older(file):
            file.attrs.modify("schema_version", 1)
            del file["steps/z_loss"], file["routing/weight"]

        run = results.open_run(self.copy(older))
        self.assertNotIn("z_loss", run.steps())
        self.assertNotIn("weight", run.routing())

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
        table, attributes = results.open_bench(bench_exchange(self.folder / "exchange.h5", 2))
        self.assertEqual((attributes["ranks"], attributes["config"]["model.width"]), ("2", 8))
        self.assertEqual(set(table["load"]), {"even", "half to one"})
        self.assertTrue((table["seconds"] > 0).all())
        with self.assertRaisesRegex(results.ResultsError, "is results of a run, not a benchmark"):
            results.open_bench(self.file)


class Comparison(unittest.TestCase):
    def test_student_s_quantiles(self):  # of printed tables
        for degrees, quantile in [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)]:
            self.assertAlmostEqual(compare.student_quantile(degrees), quantile, 3)

    def test_mean_and_interval(self):
        mean, half, number = compare.mean_and_interval([1, 2, 3, np.nan])
        self.assertEqual((mean, number), (2, 3))
        self.assertAlmostEqual(half, 4.3027 / 3**0.5, 3)
        self.assertTrue(np.isnan(compare.mean_and_interval([5])[1]))
        self.assertEqual(compare.with_interval(*compare.mean_and_interval([5])), "5.00 (1)")

    TABLE = pd.DataFrame({"run.seed": [1, 2, 3, 1, 2, 4], "ffn.experts": [1, 1, 1, 4, 4, 4],
                          "test_accuracy": [0.5, 0.7, 0.9, 0.6, 0.81, 0.1]})

    def test_groups(self):
        row = compare.summarize(self.TABLE, ["ffn.experts"], ["test_accuracy"]).iloc[0]
        self.assertAlmostEqual(row["test_accuracy"], 0.7)
        self.assertEqual(row["test_accuracy_n"], 3)

    def test_pairs_are_of_the_seeds_that_both_have(self):
        mean, half, number, verdict = compare.paired_differences(self.TABLE, "test_accuracy", {"ffn.experts": 1},
                                                                 {"ffn.experts": 4})
        self.assertAlmostEqual(mean, 0.105)
        self.assertAlmostEqual(half, 12.706 * 0.005, 4)
        self.assertEqual((number, verdict), (2, "higher"))
        self.assertEqual(compare.paired_differences(self.TABLE, "test_accuracy", {"ffn.experts": 1},
                                                    {"ffn.experts": 8})[2:], (0, "no common seeds"))

    def test_layouts_of_one_run_are_no_further_evidence(self):
        table = self.TABLE.assign(**{"parallel.experts": 1})
        twice = pd.concat([table, table.assign(**{"parallel.experts": 2})])
        self.assertEqual(len(compare.without_repeats(twice)), len(table))


class Replication(unittest.TestCase):
    """The repeated study's tables, of a made-up table of runs."""

    @staticmethod
    def runs(*rows):
        common = {"state": "finished", "ranks": 1, "threads": 1, "digest": "", "parameters_active": 10, "epochs": 1.0,
                  "parameters_stored": 20, "test_accuracy": 0.5, "best_accuracy": 0.5, "seconds_per_epoch": 2.0,
                  "run.seed": 1, "data.kind": "cifar10", "model.width": 300, "model.layers": 12, "ffn.kind": "moe",
                  "ffn.router": "switch", "ffn.experts": 4, "ffn.balance_loss": 0.01, "train.batch": 256,
                  "train.lr": 1e-3, "parallel.experts": 1}
        return pd.DataFrame([{**common, "run": f"run{i}", **row} for i, row in enumerate(rows)])

    def test_runs_that_differ_otherwise_are_kept_apart(self):
        table = replication.study_table(self.runs(
            {}, {"run.seed": 2}, {"ffn.router": "random", "ffn.balance_loss": -1}, {"ffn.balance_loss": 0},
            {"train.lr": 1e-2}, {"ffn.router": "hash"}, {"state": "running"}))
        self.assertEqual(list(table["setting"])[:3], ["A", "A", "A"])
        self.assertEqual(set(list(table["setting"])[3:]), {"B", "C"})  # and neither hash nor what still runs
        words = " ".join(replication.settings_words(table))
        self.assertIn("ffn.balance_loss 0", words)
        self.assertIn("train.lr 0.01", words)
        accuracy = replication.tables(table)[-1][1]
        self.assertIn("50.00 ± 0.00 (2)", list(accuracy["measured"]))

    def test_claims(self):
        accuracies = [(0.60, 0.61), (0.70, 0.71), (0.65, 0.66)]
        table = replication.study_table(self.runs(*(
            {"ffn.router": router, "run.seed": seed, "test_accuracy": pair[router == "random"] + 1e-4 * seed,
             "seconds_per_epoch": 3.0 if router == "random" else 2.0 + seed}
            for seed, pair in enumerate(accuracies) for router in ("switch", "random"))))
        claims = replication.claims(table).set_index("claim")
        row = claims.loc["random routing is as accurate as learned"]
        self.assertEqual((row["measured"], row["holds here"]), ("+1.00 ± 0.00 (3) points", "yes"))
        self.assertEqual(claims.loc["random routing trains faster than learned", "holds here"], "not shown")
        for claimed, verdict, words in [("lower", "lower", "yes"), ("higher", "lower", "no"), ("no lower", "lower", "no"),
                                        ("no lower", "not told apart", "not refuted"),
                                        ("no lower", "one seed: no interval", "not shown")]:
            self.assertEqual(replication.holds(claimed, verdict), words)


class Messages(unittest.TestCase):
    """The LogGP model: of made-up networks, and against what the program says that it sends."""

    def test_a_fit_finds_the_network_again(self):
        known = loggp.Network("known", 2e-6, 0.5e-6, 1e-9)
        rows = [{"ranks": ranks, "bytes": size, "file": "a.h5", "host": "here",
                 "seconds_least": known.all_to_all(ranks, size, loggp.FORWARD)}
                for ranks in (2, 4, 8) for size in (1e3, 1e5, 1e7)]
        network, bench = loggp.fit(pd.DataFrame(rows))
        for name in ("latency", "gap", "byte"):
            self.assertAlmostEqual(getattr(network, name) / getattr(known, name), 1, 6)
        np.testing.assert_allclose(bench["predicted"], bench["seconds_least"])
        two = loggp.fit(pd.DataFrame([row for row in rows if row["ranks"] == 2]))[0]
        self.assertEqual(two.gap, 0)  # two ranks do not tell it
        self.assertAlmostEqual(two.latency / known.latency, 1, 6)

    def test_a_step_s_work(self):
        step = loggp.Step(microbatches=4, tokens=16, width=64, mixtures=3, experts=4, visits=1, dense=1000, expert=4000,
                          compute=0.5)
        byte = loggp.Network("bytes alone", 0, 0, 1)
        self.assertEqual(loggp.predict(step, byte, 1, 1), {"compute": 2, "exchange": 0, "reduce": 0})
        parts = loggp.predict(step, byte, 2, 2)
        self.assertEqual(parts["compute"], 1)
        self.assertEqual(parts["exchange"], 2 * 3 * (4128 + 4096))  # 4128: bench exchange's of 16 tokens, 64 wide
        self.assertEqual(parts["reduce"], 2 * 1 / 2 * 4000)  # each expert has one owner
        self.assertEqual(loggp.predict(step, byte, 4, 2)["reduce"], 2 * 3 / 4 * 4000 + 2 * 1 / 2 * 8000)
        self.assertEqual(loggp.predict(step, loggp.Network("latency alone", 1, 0, 0), 4, 4)["reduce"], 4)
        self.assertEqual(loggp.predict(step, byte, 4, 1, cores=2)["compute"], 1)


if __name__ == "__main__":
    unittest.main(argv=["results_test.py", "-v"])
