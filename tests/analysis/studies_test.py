"""analysis/switchyard_studies.py finds the runs of a study by their configuration, and says what it leaves out.

studies_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import pathlib
import re
import subprocess
import tempfile
import types
import unittest

from support import PROGRAM, run_study  # first: it looks for the libraries
import switchyard_compare as compare
import switchyard_fff as fff
import switchyard_mixtures as mixtures
import switchyard_results as results
import switchyard_studies as studies


def run_of(point, *, seed=1, status="finished", measures=(0.9, 0.8), data="", **keys):
    config = {**point, "run.seed": seed, **{key.replace("__", "."): value for key, value in keys.items()}}
    attributes = {"status": status, "memorisation_accuracy": measures[0], "generalisation_accuracy": measures[1],
                  "data_train": data}
    return types.SimpleNamespace(name="run", config=config, attributes=attributes)


class Points(unittest.TestCase):
    def test_defaults_are_the_program_s(self):
        words = subprocess.run([str(PROGRAM), "train", "--help"], check=True, capture_output=True, text=True).stdout
        known = {key: "" if value == "(empty)" else results.typed(value)
                 for key, value in re.findall(r"^  --(\w+\.\w+) (.*)$", words, re.MULTILINE)}
        apart = [key for key in known if key.startswith("data.synthetic_") and key != "data.synthetic_seed"]
        for key in [*compare.LAYOUT_KEYS, compare.SEED, *apart]:
            del known[key]
        self.assertEqual(studies.DEFAULTS, known)

    def test_every_cell_of_the_tables(self):
        for study, number in [("fff-table1", 20), ("fff-table2", 15), ("fff-table3", 7), ("chen", 16),
                              ("shazeer-table6", 6)]:
            self.assertEqual(len(studies.points_of(study)), number)
        self.assertEqual({(studies.training_width(point), 0 if point["ffn.kind"] == "dense" else point["ffn.leaf"])
                          for point in studies.points_of("fff-table1")}, set(fff.TABLE_1))
        self.assertEqual({(studies.training_width(point), point["ffn.kind"])
                          for point in studies.points_of("fff-table2")}, set(fff.TABLE_2))
        keys = ("data.clusters_setting", "ffn.kind", "ffn.activation")
        self.assertEqual({tuple(point[key] for key in keys) for point in studies.points_of("chen")}, set(mixtures.CHEN))

    def test_values_that_follow_are_those_of_the_program_s_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            run_study(folder, "chen", "--data.clusters_setting", 1, "--ffn.kind", "dense, moe", "--run.seed", 1,
                      "--run.steps", 1, "--data.limit", 64, "--train.batch", 64, "--train.microbatch", 32)
            runs = results.open_runs(folder)
            self.assertEqual(sorted((run.config["ffn.activation"], run.config["train.lr"]) for run in runs),
                             [("cube", 0.001), ("cube", 0.01), ("identity", 0.001), ("identity", 0.003)])
            table = results.table_of_runs(runs)
            self.assertEqual(list(table["dispatch_entropy"] > 0), list(table["ffn.kind"] == "moe"))
            selection = studies.runs_of_study(runs, "chen")
        self.assertEqual((len(selection.runs), selection.words),
                         (4, "4 runs of configs/studies/chen.cfg, but with run.steps 1, data.limit 64, train.batch 64, "
                             "train.microbatch 32."))


class Choice(unittest.TestCase):
    POINTS = studies.points_of("fff-table1")
    TREE = next(point for point in POINTS if (point["ffn.hidden"], point["ffn.leaf"]) == (128, 8))
    DENSE = next(point for point in POINTS if (point["ffn.hidden"], point["ffn.kind"]) == (128, "dense"))

    def words(self, *runs):
        selection = studies.runs_of_study(runs, "fff-table1")
        return len(selection.runs), selection.words

    def test_other_runs_are_left_out_and_named(self):
        for keys, words in [({"train__lr": 0.1}, "with train.lr 0.1"), ({"compute__dtype": "bf16"}, "compute.dtype bf16"),
                            ({"seed": 1}, "1 of a seed that is there already"),
                            ({"status": "running"}, "1 not finished"), ({"ffn__leaf": 16}, "with ffn.leaf 16"),
                            ({"run__epochs": 6, "data__limit": 5000}, "1 with run.epochs 6, data.limit 5000"),
                            ({"train__clip": 1, "train__lr": 1, "data__flip": True, "data__mean": 0, "ffn__tree": "hard"},
                             "1 with data.flip True, data.mean 0, ffn.tree hard and 2 other keys.")]:
            number, said = self.words(run_of(self.TREE), run_of(self.TREE, **keys), run_of(self.TREE, seed=2))
            self.assertEqual(number, 2)
            self.assertRegex(said, f"2 runs of configs/studies/fff-table1.cfg. Left out: .*{words}")
        runs = [run_of(self.TREE, seed=seed, data=f"64 samples, XXH3-128 {data}") for seed, data in enumerate("aabb")]
        number, said = self.words(*runs, run_of(self.DENSE, data=runs[0].attributes["data_train"]))
        self.assertEqual(number, 3)
        self.assertRegex(said, "Left out: 2 on other data.")
        self.assertEqual(self.words(*runs[:2], run_of(self.TREE, seed=7))[0], 3)  # made before data were recorded
        self.assertEqual(self.words(run_of(self.TREE, data__kind="mnist"), run_of(self.TREE, model__kind="vit")),
                         (0, "no finished runs of configs/studies/fff-table1.cfg."))

    def test_what_a_run_leaves_unused_does_not_tell_it_apart(self):
        unused = {"ffn__router": "random", "ffn__experts": 7, "model__layers": 1, "parallel__threads": 2}
        self.assertEqual(self.words(run_of(self.DENSE, **unused, ffn__leaf=32, ffn__hardening=0),
                                    run_of(self.TREE, **unused, ffn__activation="gelu"),
                                    run_of(self.TREE, seed=2, ffn__hidden=1, ffn__depth=4))[0], 3)
        self.assertEqual(self.words(run_of(self.DENSE, ffn__activation="gelu"))[0], 0)

    def test_a_shorter_version_stands_in_where_there_is_no_other(self):
        short = [run_of(self.TREE, seed=seed, run__epochs=6) for seed in (1, 2)]
        self.assertEqual(self.words(*short, run_of(self.TREE, run__epochs=5)),
                         (2, "2 runs of configs/studies/fff-table1.cfg, but with run.epochs 6. "
                             "Left out: 1 with run.epochs 5."))

    def test_a_table_of_seeds(self):
        runs = [run_of(self.TREE, seed=seed, measures=(0.9, 0.8 + seed / 100)) for seed in (1, 2, 2)]
        ((title, words, rows), *others) = studies.literature(runs, fff.TABLES)
        self.assertIn("1 of a seed", words)
        self.assertRegex(rows["G_A here: best; mean"].item(), r"82.00; 81.50 ± [\d.]+ \(2\)")
        self.assertEqual([other[2] for other in others], [None, None])


class Figures(unittest.TestCase):
    RUNS = [run_of(point, measures=(0.9, 0.8)) for point in (Choice.TREE, Choice.DENSE)]

    def test_accuracy_has_a_tick_for_every_leaf_and_for_dense(self):
        axis = fff.accuracy_figure(self.RUNS).axes[0]
        self.assertEqual([text.get_text() for text in axis.get_xticklabels()], ["8", "dense"])

    def test_accuracy_against_time_takes_the_widths_that_have_both(self):
        rows = {"model": "mlp", "data": "fashion-mnist", "network": ["dense", "fff", "moe top-1", "fff"],
                "width": [128, 128, 128, 64], "leaf": [0, 8, 8, 8], "batch": [2048, 2048, 2048, 4096],
                "seconds_least": [4e-3, 1e-3, 2e-3, 3e-3]}
        times = fff.pd.DataFrame(rows)
        for axis, accuracy in zip(fff.time_figure(self.RUNS, times).axes, (90, 80)):
            self.assertEqual({text.get_text(): (round(text.xy[0]), round(text.xy[1])) for text in axis.texts},
                             {"8": (1000, accuracy), "dense": (4000, accuracy)})
        self.assertIsNone(fff.time_figure(self.RUNS, times[times["width"] == 64]))
        self.assertIsNone(fff.time_figure(self.RUNS, fff.pd.DataFrame()))


if __name__ == "__main__":
    unittest.main(argv=["studies_test.py", "-v"])
