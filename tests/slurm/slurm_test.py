"""The job scripts on a real SLURM of two nodes (cluster.sh): what a job prints, how it ends, and its digest.

slurm_test.py ROOT PROGRAM CLUSTER [unittest's options]; exit code 77 where there is no cluster.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

ROOT, PROGRAM, CLUSTER = pathlib.Path(sys.argv.pop(1)), sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))

SMALL = """
[run]
name = small
epochs = 3
[data]
kind = synthetic
synthetic_samples = 148
synthetic_size = 12
[model]
layers = 2
width = 24
heads = 3
patch = 4
[ffn]
kind = moe
hidden = 20
experts = 4
router = switch
[train]
batch = 48
microbatch = 2
lr = 0.01
dropout = 0.1
"""

# Long enough to be told to stop in the middle: ten seconds on two idle cores, where a job takes some to be preempted.
LONG = "--run.epochs 1500 --run.eval_every 1500 --checkpoint.every 100000".split()
TWO_NODES = "--nodes=2 --ntasks-per-node=2".split()


class Job:
    """A job, or one task of an array."""

    def __init__(self, number, output):
        self.number, self.output = number, output

    def text(self):
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""

    def state(self):
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", self.number], check=True, capture_output=True,
                               text=True).stdout
        return re.search(r"\bJobState=(\w+)", shown)[1]

    def wait_for(self, text, seconds=60):
        self.wait_until(lambda: text in self.text(), seconds)

    def end(self, seconds=300):
        """Its last state."""
        self.wait_until(lambda: self.state() in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), seconds)
        return self.state()

    def wait_until(self, condition, seconds):
        last = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > last:
                raise AssertionError(f"job {self.number} is {self.state()} after {seconds} s:\n{self.text()}")
            time.sleep(0.1)


class Scripts(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        (self.folder / "small.cfg").write_text(SMALL, encoding="utf-8")
        self.jobs = []
        self.addCleanup(self.cancel)

    def cancel(self):
        """What still runs writes to the folder."""
        if not self.jobs:
            return
        subprocess.run(["scancel", "--quiet", *self.jobs], check=False)
        queue = ["squeue", "--noheader", "--jobs", ",".join(self.jobs)]
        for _ in range(300):
            if not subprocess.run(queue, check=False, capture_output=True, text=True).stdout:
                return
            time.sleep(0.1)

    def sbatch(self, *words, **environment):
        """The number of a job."""
        return self.submit(["sbatch", "--parsable", *words], **environment).strip()

    def submit(self, command, **environment):
        """What a command that hands a job to SLURM prints, in a folder that is not the project's."""
        # Two nodes that are one machine must not share memory segments of one name, ranks share cores, and other jobs of
        # this user that end must not take away the folder that Open MPI keeps in /tmp.
        settings = {"OMPI_MCA_orte_tmpdir_base": str(self.folder), "SWITCHYARD_ROOT": str(ROOT), "SWITCHYARD": PROGRAM, "OMPI_MCA_btl": "self,tcp",
                    "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_mpi_yield_when_idle": "1",
                    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        done = subprocess.run(command, cwd=self.folder, check=True, capture_output=True,
                              env=os.environ | settings | environment, text=True)
        self.jobs.append(re.search(r"(\d+)\s*\Z", done.stdout)[1])
        return done.stdout

    def train(self, *options, script="train", words=(), output="job.out", **environment):
        output = self.folder / output
        number = self.sbatch(*options, f"--output={output}", ROOT / f"slurm/{script}.sbatch", "--config", "small.cfg",
                             *words, **environment)
        return Job(number, output)

    def plain_digest(self, *words):
        done = subprocess.run([ROOT / "scripts/mpirun.sh", "2", PROGRAM, "train", "--config", "small.cfg", "--run.name",
                               "plain", *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return self.digest(done.stdout)

    def digest(self, text):
        found = re.findall(r"^digest (\w{32})$", text, re.MULTILINE)
        self.assertEqual(len(found), 1, text)
        return found[0]

    def check_resumed_once(self, job):
        text = job.text()
        (stopped,) = re.findall(r"^stopped after step (\d+) on signal", text, re.MULTILINE)
        (resumed,) = re.findall(r"^resuming \S+ after step (\d+)$", text, re.MULTILINE)
        self.assertEqual(stopped, resumed)
        self.assertGreater(int(stopped), 0)
        self.assertRegex(text, "start 1: (.*\n)+slurm: told to stop.*\n(.*\n)+.*back into the queue\n(.*\n)*.*start 2")


class Train(Scripts):
    def test_ranks_on_two_nodes_reach_the_digest_of_a_plain_mpirun(self):
        job = self.train(*TWO_NODES, words=["--parallel.experts", "4"])
        self.assertEqual(job.end(), "COMPLETED", job.text())
        mesh = "nodes 2 (nodeA,nodeB), ranks 4, threads per rank 1, by mpirun"
        self.assertIn(f"slurm: job {job.number}, start 1: {mesh}\n", job.text())
        self.assertIn("mesh: 4 ranks x 1 thread, experts over 4 ranks", job.text())
        self.assertEqual(self.digest(job.text()), self.plain_digest())

    def test_threads_are_the_cpus_of_a_task(self):
        # Few and large microbatches: four threads take turns on the cores, and wait for one another in each.
        job = self.train("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2",
                         words=["--run.epochs", "1", "--train.microbatch", "12"])
        self.assertEqual(job.end(), "COMPLETED", job.text())
        self.assertIn("mesh: 2 ranks x 2 threads", job.text())
        self.assertNotIn("warning", job.text())

    def test_a_gpu_job_asks_for_a_gpu_per_rank(self):
        job = self.train(*TWO_NODES, "--gpus-per-node=2", "--cpus-per-task=1", script="gpu")
        self.assertEqual(job.end(), "FAILED")
        self.assertIn("ranks 4, threads per rank 1, GPUs per node 2, by mpirun\n", job.text())
        self.assertIn("compute.device = cuda", job.text())  # there is none


class Preempted(Scripts):
    @classmethod
    def digest_of_a_plain_run(cls, scripts):
        if not hasattr(cls, "plain"):
            cls.plain = scripts.plain_digest(*LONG)
        return cls.plain

    def preempt_in_the_middle(self):
        job = self.train("--nodes=2", "--ntasks-per-node=1", words=LONG)
        job.wait_for("\nmesh: ")
        self.sbatch("--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
        job.wait_for("start 2: ")
        self.assertEqual(job.end(), "COMPLETED", job.text())
        self.assertEqual(self.digest(job.text()), self.digest_of_a_plain_run(self))
        return job

    def test_a_preempted_job_requeues_itself_and_ends_at_the_same_digest(self):
        self.check_resumed_once(self.preempt_in_the_middle())

    # SLURM then sends SIGTERM to mpirun's daemons, and nothing to the script.
    def test_so_it_does_where_slurm_does_not_tell_the_script(self):
        file = pathlib.Path(os.environ["SLURM_CONF"])
        text = file.read_text(encoding="utf-8")

        def configure(new):
            file.write_text(new, encoding="utf-8")
            subprocess.run(["scontrol", "reconfigure"], check=True)

        self.addCleanup(configure, text)
        configure(text.replace("SlurmctldParameters=preempt_send_user_signal\n", ""))
        job = self.preempt_in_the_middle()
        self.assertNotIn("told to stop", job.text())


class Requeued(Scripts):
    # What the first start was told to begin from is no longer where the second begins.
    def test_a_requeued_job_forgets_overwrite_and_resume(self):
        program = self.write_program('case $* in ranks* | *"--run.seed 1 --resume") ;; *) exit 75 ;; esac')
        cases = ["--overwrite", "--resume=begin.h5", "--resume begin.h5", "--overwrite --run.name x"]
        jobs = [self.train("--ntasks=1", words=[*words.split(), "--run.seed", "1"], output=f"{number}.out",
                           SWITCHYARD=program) for number, words in enumerate(cases)]
        for words, job in zip(cases, jobs):
            self.assertEqual(job.end(), "COMPLETED", job.text())
            beginning, kept = "train --parallel.threads 1 --config small.cfg", " --run.name x" * ("name" in words)
            self.assertEqual(re.findall("^train .*", job.text(), re.MULTILINE),
                             [f"{beginning} {words} --run.seed 1", f"{beginning}{kept} --run.seed 1 --resume"])


    def test_a_job_may_be_told_to_stop_before_its_run(self):
        program = self.write_program("case $*,$SLURM_RESTART_COUNT in ranks*,) sleep 3 ;; ranks*,1 | *--resume,1) ;;\n"
                                     "train*) trap 'exit 75' USR1; sleep 30 & wait; exit 1 ;; esac")
        job = self.train("--ntasks=1", SWITCHYARD=program)
        job.wait_for("start 1: ")
        subprocess.run(["scancel", "--signal=USR1", "--batch", job.number], check=True)
        self.assertEqual(job.end(), "COMPLETED", job.text())
        self.assertEqual(re.findall("^train.*", job.text(), re.MULTILINE),
                         ["train --parallel.threads 1 --config small.cfg",
                          "train --parallel.threads 1 --config small.cfg --resume"])

    def write_program(self, body):
        """In Switchyard's place, on one rank: it prints its words, and how many ranks there are."""
        program = self.folder / "program"
        program.write_text(f'#!/bin/sh\n[ "$1" != ranks ] || set ranks 1\necho "$*"\n{body}\n', encoding="utf-8")
        program.chmod(0o755)
        return str(program)


class Limit(Scripts):
    # SLURM looks at limits every half minute, so the signal comes within that time.
    def test_a_job_near_its_time_limit_writes_a_checkpoint_and_goes_on(self):
        job = self.train("--nodes=2", "--ntasks-per-node=1", "--time=1", "--signal=B:USR1@55",
                         words=["--run.epochs", "100000", "--run.eval_every", "0", "--checkpoint.every", "1000000"])
        job.wait_for("\nresuming ", 90)
        self.check_resumed_once(job)


class Study(Scripts):
    def tasks(self, seeds, *words):
        """The tasks of the array that `study submit` makes of a study of two ranks with these seeds."""
        (self.folder / "array.cfg").write_text(f"{SMALL}[study]\nranks = 2\naxis = run.seed: {seeds}\n",
                                               encoding="utf-8")
        self.submit([PROGRAM, "study", "submit", "array.cfg", "--script", ROOT / "slurm/study.sbatch", *words])
        number = self.jobs[-1]
        listed = subprocess.run([PROGRAM, "study", "list", "array.cfg"], cwd=self.folder, check=True,
                                capture_output=True, text=True).stdout.splitlines()
        return [(line.split()[1], Job(f"{number}_{index}", self.folder / f"switchyard-study-{number}-{index}.out"))
                for index, line in enumerate(listed)]

    def log_of(self, run):
        log = self.folder / "runs/array" / run / "train.log"
        return log.read_text(encoding="utf-8") if log.exists() else ""

    def test_each_task_of_the_array_trains_its_run(self):
        for run, job in self.tasks("3..5"):
            self.assertEqual(job.end(), "COMPLETED", job.text())
            self.assertIn(f"done     {run}  2 ranks", job.text())
            seed = run.removeprefix("seed")
            self.assertEqual(self.digest(self.log_of(run)), self.plain_digest("--run.seed", seed, "--overwrite"))
        status = subprocess.run([PROGRAM, "study", "status", "runs/array"], cwd=self.folder, check=True,
                                capture_output=True, text=True).stdout
        self.assertIn("array: 3 runs in runs/array: 3 done", status)

    def test_a_task_that_is_told_to_stop_goes_on_later(self):
        ((run, job),) = self.tasks("1", *LONG)
        job.wait_until(lambda: "\nmesh: " in self.log_of(run), 60)
        subprocess.run(["scancel", "--signal=USR1", "--batch", job.number], check=True)
        job.wait_until(lambda: "\nresuming " in self.log_of(run), 120)
        self.assertRegex(job.text(), f"stopped  {run} (.*\n)+.*back into the queue\n(.*\n)*.*start 2")
        (stopped,) = re.findall(r"^stopped after step (\d+) on signal", self.log_of(run), re.MULTILINE)
        self.assertRegex(self.log_of(run), rf"\nresuming \S+ after step {stopped}\n")


    # The project's folder, the program's and the launcher's: of a name of two words.
    def test_names_may_hold_spaces(self):
        place = self.folder / "two words"
        place.mkdir()
        (place / "switchyard").symlink_to(ROOT)
        (place / "program").symlink_to(PROGRAM)
        (place / "mpirun").write_text('#!/bin/sh\nexec mpirun "$@"\n', encoding="utf-8")
        (place / "mpirun").chmod(0o755)
        (self.folder / "array.cfg").write_text(f"{SMALL}[study]\nranks = 2\naxis = run.seed: 3\n", encoding="utf-8")
        output = self.folder / "spaces.out"
        number = self.sbatch("--array=0", "--ntasks=2", f"--output={output}", place / "switchyard/slurm/study.sbatch",
                             "array.cfg", SWITCHYARD_ROOT=str(place / "switchyard"), SWITCHYARD=str(place / "program"),
                             SWITCHYARD_LAUNCHER=f"'{place}/mpirun' --quiet")
        job = Job(f"{number}_0", output)
        self.assertEqual(job.end(), "COMPLETED", job.text())
        self.assertIn(f"by '{place}/mpirun' --quiet\n", job.text())
        self.assertIn("done     seed3  2 ranks", job.text())


class Failures(Scripts):
    def check_fails(self, job, *parts):
        self.assertEqual(job.end(), "FAILED", job.text())
        for part in parts:
            self.assertIn(part, job.text())
        self.assertNotIn("start 2: ", job.text())

    def test_a_wrong_configuration_fails_the_job_and_says_why(self):
        self.check_fails(self.train(*TWO_NODES, words=["--run.epoch", "3"]), '"--run.epoch", did you mean run.epochs?')

    def test_a_missing_program_or_site_is_named(self):
        self.check_fails(self.train(SWITCHYARD="/no/switchyard"), "there is no program /no/switchyard: build it")

    def test_outside_slurm_it_says_what_to_do(self):
        done = subprocess.run(["bash", ROOT / "slurm/train.sbatch"], check=False, capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"]})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("this is a job script: give it to sbatch", done.stderr)

    def test_an_uneven_allocation_is_refused(self):
        self.check_fails(self.train("--nodes=2", "--ntasks=3"), "3 ranks on 2 nodes: give --ntasks-per-node")

    def test_an_unknown_launcher_is_refused(self):
        self.check_fails(self.train(SWITCHYARD_LAUNCHER="aprun"), "SWITCHYARD_LAUNCHER = aprun: give mpirun or srun")
        self.check_fails(self.train(SWITCHYARD_LAUNCHER="'my mpirun", output="open.out"),
                         "SWITCHYARD_LAUNCHER = 'my mpirun: its quotes are not closed")


class Launcher(Scripts):
    # This SLURM gives no PMI to what srun starts (MpiDefault=none), so MPI cannot start there. mpirun can.
    def test_a_shell_inside_srun_does_all_but_start_ranks_by_itself(self):
        (self.folder / "inside.cfg").write_text(f"{SMALL}[study]\nranks = 2\naxis = run.seed: 3\n", encoding="utf-8")
        words = ["--version", "inspect small.cfg", "study run inside.cfg", "inspect runs/inside/seed3/results.h5"]
        lines = [f'"$1" {command} || exit' for command in words] + ['! "$1" ranks']
        (self.folder / "inside.sh").write_text("\n".join(lines), encoding="utf-8")
        output = self.folder / "inside.out"
        number = self.sbatch("--ntasks=2", f"--output={output}",
                             f"--wrap=srun --ntasks=1 --cpu-bind=none bash inside.sh '{PROGRAM}'")
        job = Job(number, output)
        self.assertEqual(job.end(60), "COMPLETED", job.text())
        self.assertIn("inside: 1 run, 1 done\n", job.text())
    def test_srun_works_where_slurm_speaks_the_mpis_pmi(self):
        known = subprocess.run(["srun", "--mpi=list"], check=True, capture_output=True, text=True)
        if "pmix" not in known.stdout + known.stderr:
            self.skipTest("this SLURM has no pmix")
        job = self.train(*TWO_NODES, SWITCHYARD_LAUNCHER="srun --mpi=pmix")
        self.assertEqual(job.end(), "COMPLETED", job.text())
        self.assertIn("mesh: 4 ranks x 1 thread", job.text())
        self.assertEqual(self.digest(job.text()), self.plain_digest())

    def test_srun_with_another_pmi_is_found_before_the_run(self):
        job = self.train(*TWO_NODES, SWITCHYARD_LAUNCHER="srun --mpi=pmi2")
        self.assertEqual(job.end(), "FAILED", job.text())
        self.assertIn("slurm: 4 ranks do not start by: srun --mpi=pmi2 --ntasks=4", job.text())
        self.assertIn("Set SWITCHYARD_LAUNCHER (slurm/site.sh): mpirun of the MPI", job.text())

    def test_an_mpirun_of_another_mpi_is_found_before_the_run(self):
        # Its ranks do not find each other: each is a world of one.
        other = self.folder / "mpirun"
        other.write_text('#!/bin/bash\nfor rank in {1..4}; do mpirun -n 1 "${@: -2}"; done\n', encoding="utf-8")
        other.chmod(0o755)
        job = self.train(*TWO_NODES, SWITCHYARD_LAUNCHER=str(other))
        self.assertEqual(job.end(), "FAILED", job.text())
        self.assertIn(": 4 worlds of their own, not one of 4 ranks. Set SWITCHYARD_LAUNCHER", job.text())
        self.assertNotIn("mesh", job.text())


if __name__ == "__main__":
    if not CLUSTER.exists():
        print(f"skipped: there is no SLURM: {CLUSTER}")
        sys.exit(77)
    os.environ["SLURM_CONF"] = str(CLUSTER.resolve() / "slurm.conf")
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
