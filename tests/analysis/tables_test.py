"""What analysis/ computes from tables: intervals, differences, the repeated study's tables, scaling, the LogGP model.

tables_test.py ROOT PROGRAM; ends with 77 (skipped) where a library is missing.
"""

import types
import unittest
import unittest.mock

import support  # first: it looks for the libraries
import numpy as np
import pandas as pd
import switchyard_compare as compare
import switchyard_fff as fff
import switchyard_loggp as loggp
import switchyard_mixtures as mixtures
import switchyard_replication as replication
import switchyard_scaling as scaling


class Patience(unittest.TestCase):
    EVALUATIONS = pd.DataFrame({"validation_accuracy": [0.5, 0.6, 0.6, 0.55, 0.7, 0.4],
                                "accuracy": [0.10, 0.21, 0.32, 0.43, 0.54, 0.65]})

    def test_ends_a_run_after_so_many_epochs_without_a_better_accuracy(self):
        for patience, percent in [(1, 21), (2, 21), (3, 54), (100, 54)]:
            self.assertAlmostEqual(fff.generalisation_with_patience(self.EVALUATIONS, patience), percent)

    def test_a_cell_has_the_best_of_its_seeds(self):
        def run(leaf, accuracy):
            evaluations = pd.DataFrame({"validation_accuracy": [0.5], "accuracy": [accuracy]})
            return types.SimpleNamespace(config={"ffn.kind": "fff", "ffn.hidden": 32, "ffn.leaf": leaf, "ffn.depth": 0},
                                         evaluations=lambda: evaluations)
        table = fff.patience_table([run(1, 0.25), run(1, 0.75), run(8, 0.5)], patiences=(1,))
        self.assertEqual(table[["leaf", "seeds", "patience 1"]].values.tolist(), [["8", 1, 50.0], ["1", 2, 75.0]])


class Evenness(unittest.TestCase):
    def test_is_of_tokens_and_of_their_weights_each_step_by_itself(self):
        # Step 1: loads 2 and 6, importance 1 and 1.5. Step 2: even loads, and one expert without weight.
        rows = pd.DataFrame([{"step": step, "block": 0, "expert": expert, "load": load, "weight": weight}
                             for step, expert, load, weight in [(1, 0, 2, 0.5), (1, 1, 6, 0.25), (2, 0, 4, 0.5),
                                                                (2, 1, 4, np.nan)]])
        found = mixtures.evenness(types.SimpleNamespace(routing=lambda: rows))
        self.assertAlmostEqual(found["CV(importance)"], (0.2 + 1) / 2)
        self.assertAlmostEqual(found["CV(load)"], (0.5 + 0) / 2)
        self.assertAlmostEqual(found["max/mean load"], (1.5 + 1) / 2)


class Comparison(unittest.TestCase):
    def test_mean_and_interval(self):
        mean, half, number = compare.mean_and_interval([1, 2, 3, np.nan])
        self.assertEqual((mean, number), (2, 3))
        self.assertAlmostEqual(half, 4.3027 / 3**0.5, 3)
        # Two degrees of freedom, as above, and thirty: of printed tables of Student's t.
        self.assertAlmostEqual(compare.mean_and_interval([0, 2] * 15 + [1])[1] / np.std([0, 2] * 15 + [1], ddof=1),
                               2.042 / 31**0.5, 3)
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
        columns = ["test_accuracy"]
        pd.testing.assert_frame_equal(compare.summarize(twice, ["ffn.experts"], columns),
                                      compare.summarize(table, ["ffn.experts"], columns))

    def test_runs_of_one_digest_have_one_outcome(self):
        common = {"ffn.kind": "dense", "test_accuracy": 0.5}
        table = pd.DataFrame([{**common, "run.seed": seed, "ffn.router": router, "digest": f"{seed}"}
                              for seed in (1, 2) for router in ("switch", "random")])  # dense: neither is used

        def count(rows):
            return compare.summarize(rows, ["ffn.kind"], ["test_accuracy"])["test_accuracy_n"].item()

        self.assertEqual(count(table), 2)
        self.assertEqual(count(table.assign(digest="")), 4)  # not known of runs that have not ended
        self.assertEqual(count(table.assign(test_accuracy=[0.1, 0.2, 0.3, 0.4])), 4)  # evaluated otherwise

    def test_each_run_s_time_counts_but_for_a_copy_s(self):
        table = pd.DataFrame([{"ffn.kind": "dense", "run.seed": 1, "digest": "a", "seconds_per_epoch": seconds}
                              for seconds in (2.0, 3.0, 3.0)])
        row = compare.summarize(table, ["ffn.kind"], ["seconds_per_epoch"]).iloc[0]
        self.assertEqual((row["seconds_per_epoch"], row["seconds_per_epoch_n"]), (2.5, 2))


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
            {"train.lr": 1e-2}, {"ffn.router": "hash"}, {"state": "running"}, {"ffn.kind": "fff"},
            {"ffn.kind": "dense", "model.kind": "mlp"}))
        self.assertEqual(list(table["setting"])[:3], ["A", "A", "A"])
        # Neither hash, nor what still runs, nor trees and other models.
        self.assertEqual(list(table["setting"])[3:], ["B", "C"])
        words = " ".join(replication.settings_words(table))
        self.assertIn("ffn.balance_loss 0", words)
        self.assertIn("train.lr 0.01", words)
        accuracy = replication.tables(table)[-1][1]
        self.assertIn("50.00 ± 0.00 (2)", list(accuracy["measured"]))

    def test_keys_that_a_run_leaves_unused_make_no_setting(self):
        rows = [{"ffn.kind": "dense", "ffn.router": "random", "ffn.experts": 1}, {"ffn.kind": "dense", "ffn.top_k": 1},
                {"ffn.top_k": 1}, {}, {"ffn.granularity": "balanced"}, {"ffn.router": "random"},
                {"data.synthetic_size": 8}]
        table = replication.study_table(self.runs(*(
            {"ffn.top_k": 2, "ffn.granularity": "batch", "data.synthetic_size": 32, "run.seed": seed, **row}
            for row in rows for seed in (1, 2))))
        self.assertNotIn("setting", table)
        accuracy = replication.tables(table)[-1][1]  # the same bits again are no further evidence
        self.assertEqual(list(accuracy["measured"]), ["50.00 ± 0.00 (2)"] * 3)

    def test_a_figure_draws_runs_of_one_name_apart(self):
        table = replication.study_table(self.runs(*({"run": "seed1", "path": path, "ffn.router": router}
                                                    for path, router in [("a", "switch"), ("b", "random")])))
        runs = [types.SimpleNamespace(name="seed1", path=path, evaluations=lambda accuracy=accuracy: pd.DataFrame(
            {"epoch": [1.0], "accuracy": [accuracy]})) for path, accuracy in [("a", 0.25), ("b", 0.75)]]
        (axis,) = replication.accuracy_figure(runs, table).axes
        self.assertEqual([line.get_ydata()[0] for line in axis.lines[:2]], [25, 75])

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
        for claimed, verdict, words in [("lower", "lower", "yes"), ("higher", "lower", "no"),
                                        ("no lower", "lower", "no"),
                                        ("no lower", "not told apart", "not refuted"),
                                        ("no lower", "one seed: no interval", "not shown")]:
            self.assertEqual(replication.holds(claimed, verdict), words)

    def test_an_accuracy_is_compared_whatever_the_layouts(self):
        table = replication.study_table(self.runs(*(
            {"ffn.router": router, "run.seed": seed, "ranks": ranks, "test_accuracy": 0.5 + (router == "random") / 100}
            for seed in (1, 2) for router, layouts in [("switch", (1, 2)), ("random", (2,))] for ranks in layouts)))
        claims = replication.claims(table)
        row = claims[claims["claim"] == "random routing is as accurate as learned"]
        self.assertEqual(list(row["measured"]), ["+1.00 ± 0.00 (2) points"])

    def test_no_runs_with_four_experts(self):
        table = replication.study_table(self.runs({"ffn.experts": 8}, {"ffn.router": "random", "ffn.experts": 1}))
        replication.accuracy_figure([], table)
        for title, rows in replication.tables(table)[2:]:
            self.assertEqual(set(rows["measured"]), {"-"}, title)


class Scaling(unittest.TestCase):
    def test_runs_of_other_expert_parallel_sizes_are_not_mixed(self):
        common = {"run": "", "train.batch": 8, "threads": 1, "ffn.kind": "moe", "ffn.router": "switch",
                  **dict.fromkeys(scaling.MEASURED, 1.0)}
        table = pd.DataFrame([{**common, "ranks": ranks, "parallel.experts": experts, "seconds": seconds}
                              for ranks, experts, seconds in [(1, 1, 4), (2, 1, 9), (2, 2, 2), (2, 2, 3)]])
        ((words, by_rank),) = scaling.groups(table, weak=False)
        self.assertEqual(words, "strong scaling, switch, batch 8")
        self.assertEqual(list(by_rank["seconds"]), [4, 2.5])
        self.assertEqual(list(scaling.efficiency(by_rank, weak=False)), [1, 0.8])


    def test_what_is_extrapolated_has_a_mixture(self):
        runs = {kind: pd.DataFrame([{"ffn.kind": kind, "ffn.experts": 4, "train.batch": 8, "train.microbatch": 2,
                                     "tokens": 10, "ranks": 1, "threads": 1}]) for kind in ("dense", "moe")}
        groups = [(weak, kind, runs[kind]) for weak in (False, True) for kind in ("dense", "moe")]
        with unittest.mock.patch.object(scaling, "step_of", lambda run, cores: (run["ffn.kind"], cores)):
            self.assertEqual(scaling.to_extrapolate(groups, 2), ("moe", ("moe", 2)))
            self.assertEqual(scaling.to_extrapolate(groups[:1], 2), ("dense", ("dense", 2)))


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
    unittest.main(argv=["tables_test.py", "-v"])
