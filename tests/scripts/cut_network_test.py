"""Two machines, and the network between them is cut while they train: ranks and mpirun end, and say why.

The machines are network namespaces, joined by a pair of virtual devices: in a user namespace where this user is not
root. All that is started ends with the test's own process namespace.

cut_network_test.py ROOT PROGRAM; exit code 77 where namespaces may not be made, or there is no `ip` (Debian: iproute2).
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

# Set in the environment of the test in its namespaces.
INSIDE = "SWITCHYARD_IN_NAMESPACES"
ADDRESSES = {"near": "10.99.0.1", "far": "10.99.0.2"}  # rank 0 and mpirun are on the near machine
TIMEOUT = 3
SMALL = """--data.kind synthetic --model.layers 1 --model.width 32 --train.batch 32 --train.microbatch 4
    --run.epochs 100000 --run.eval_every 100000 --checkpoint.every 1000000""".split()


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def enter_namespaces():
    """Starts this test again in them, in place of this process."""
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    for program in ("ip", "unshare", "mpirun"):
        if not shutil.which(program):
            skip(f"there is no {program}")
    tried = subprocess.run([*unshare, "sh", "-c", "mount -t tmpfs none /run && ip link add type veth"], check=False,
                           capture_output=True, text=True)
    if tried.returncode != 0:
        skip(f"no namespaces may be made here: {tried.stderr.strip()}")
    os.execvpe(unshare[0], [*unshare, sys.executable, "-B", *sys.argv], os.environ | {INSIDE: "1"})


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def make_machines():
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # where `ip netns` keeps its names
    for name in ADDRESSES:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("link", "add", "eth0", "netns", "near", "type", "veth", "peer", "name", "eth0", "netns", "far")
    for name, address in ADDRESSES.items():
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")


def cut():
    ip("-n", "far", "link", "set", "eth0", "down")


class Training:
    """mpirun on the near machine; a rank on each."""

    def __init__(self, folder, *words):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        agent = self.folder / "agent"  # in ssh's place
        agent.write_text('#!/bin/sh\nshift\nexec ip netns exec far sh -c "$*"\n', encoding="utf-8")
        agent.chmod(0o755)
        hosts = ",".join(f"{address}:1" for address in ADDRESSES.values())
        settings = {"OMPI_MCA_plm_rsh_agent": str(agent), "OMPI_MCA_btl": "self,tcp",
                    "OMPI_MCA_orte_tmpdir_base": str(self.folder)}
        mpirun = [ROOT / "scripts/mpirun.sh", "mpirun", "-n", "2", "--host", hosts, "--bind-to", "none"]
        with open(self.folder / "out", "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(["ip", "netns", "exec", "near", *mpirun, PROGRAM, "train", *SMALL, *words],
                                            cwd=folder, env=os.environ | settings, stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=subprocess.STDOUT)

    def text(self):
        return (self.folder / "out").read_text(encoding="utf-8")

    def ranks(self):
        """How many of its ranks live, on both machines."""
        found = 0
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                found += os.readlink(process / "exe") == PROGRAM and os.readlink(process / "cwd") == str(self.folder)
            except OSError:
                pass
        return found


class CutNetwork(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        make_machines()
        cls.patient = Training(f"{place.name}/patient")
        cls.hasty = Training(f"{place.name}/hasty", "--parallel.timeout", str(TIMEOUT))
        for training in (cls.patient, cls.hasty):
            cls.wait_for(training, lambda training=training: "\nmesh: 2 ranks" in training.text(), 30)
        time.sleep(1)
        cut()
        cls.cut = time.monotonic()

    @staticmethod
    def wait_for(training, condition, seconds):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"after {seconds} s:\n{training.text()}")
            time.sleep(0.05)

    def check_end(self, training, seconds):
        """So many seconds after the cut at the latest."""
        left = self.cut + seconds - time.monotonic()
        self.wait_for(training, lambda: training.process.poll() is not None and not training.ranks(), left)
        self.assertNotEqual(training.process.returncode, 0)
        return training.text()

    def test_ranks_that_give_up_first_name_the_missing_one(self):
        text = self.check_end(self.hasty, TIMEOUT + 20)
        self.assertIn(f"rank 0 waited {TIMEOUT} s, and there is no answer from rank 1.", text)

    def test_mpirun_gives_up_first_and_names_the_machine(self):
        text = self.check_end(self.patient, 20)
        self.assertIn("ORTE has lost communication with a remote daemon", text)
        self.assertRegex(text, "Remote daemon: .* on node " + re.escape(ADDRESSES["far"]))


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_namespaces()
    ROOT, PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve(), os.path.realpath(sys.argv.pop(1))
    unittest.main(verbosity=2)
