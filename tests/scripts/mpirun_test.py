"""scripts/mpirun.sh ends an mpirun that outlives its ranks, and none that is healthy. A short script stands for mpirun.

mpirun_test.py ROOT
"""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SCRIPT = pathlib.Path(sys.argv.pop(1)).resolve() / "scripts/mpirun.sh"

RANK = "OMPI_COMM_WORLD_RANK=0 "
LONGER = "sleep 13"  # than the 10 s and a bit after which mpirun is ended
PIPED = ("bash", "-c", '"$@" 2>&1 | cat >&2; exit ${PIPESTATUS[0]}', "bash")
ENDED = r"mpirun \(process \d+\) is still there 10 s after its last rank here: it is ended\n"


class Mpirun:
    """A script in mpirun's place, started by mpirun.sh."""

    def __init__(self, folder, script, output=subprocess.PIPE, words=("mpirun", "-n", "1"), before=(),
                 **environment):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        fake = self.folder / "mpirun"
        fake.write_text(f"#!/usr/bin/env bash\necho $$ >{folder}/pid\n{script}\n", encoding="utf-8")
        fake.chmod(0o755)
        with open(self.folder / "err", "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen([*before, SCRIPT, *words, "true"], stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=errors if output == subprocess.PIPE else output,
                                            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment)

    def send(self, number):
        os.kill(int((self.folder / "pid").read_text(encoding="utf-8")), number)

    def end(self):
        """Exit code (128 + a signal), standard output and error."""
        out = self.process.communicate(timeout=30)[0]
        code = self.process.returncode
        return code if code >= 0 else 128 - code, out, (self.folder / "err").read_text(encoding="utf-8")


class Watch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """All at the same time, since each takes 13 s of waiting."""
        place = tempfile.TemporaryDirectory()
        cls.addClassCleanup(place.cleanup)
        at = place.name
        leaves = f"{RANK}sleep 0.5\n"  # a rank that ends
        cls.stays = Mpirun(f"{at}/stays", f"{leaves}exec sleep 60")
        cls.stays_here = Mpirun(f"{at}/stays_here", f"{leaves}exec sleep 60", words=["1"])
        # A rank that was not seen alive, and output through a pipe to a reader.
        cls.zombie = Mpirun(f"{at}/zombie", "echo result; (sleep 0.1) & exec sleep 60", before=PIPED)
        cls.works = Mpirun(f"{at}/works", f"{RANK}{LONGER}")
        cls.elsewhere = Mpirun(f"{at}/elsewhere", LONGER)
        cls.unread = Mpirun(f"{at}/unread", f"{leaves}echo result\n{LONGER}")
        cls.suspended = Mpirun(f"{at}/suspended", f"{leaves}sleep 2")
        cls.master, slave = pty.openpty()
        cls.addClassCleanup(os.close, cls.master)
        cls.terminal = Mpirun(f"{at}/terminal", f"{leaves}yes | head -n 100000", slave)
        os.close(slave)
        time.sleep(1.5)
        cls.suspended.send(signal.SIGSTOP)
        time.sleep(12)
        cls.suspended.send(signal.SIGCONT)

    def test_it_is_ended_where_its_ranks_have_gone(self):
        for mpirun, output in ((self.stays, ""), (self.zombie, "result\n")):
            code, _, errors = mpirun.end()
            self.assertEqual(code, 128 + signal.SIGKILL)
            self.assertRegex(errors, f"^{output}scripts/mpirun.sh: {ENDED}")

    def test_on_this_one_machine_as_well(self):
        code, _, errors = self.stays_here.end()
        self.assertEqual(code, 128 + signal.SIGKILL)
        self.assertRegex(errors, f"{ENDED}scripts/mpirun.sh: a rank, or mpirun itself, was ended by signal 9 .SIGKILL.: [^\n]*memory[^\n]*\n$")

    def test_it_stays_while_a_rank_works(self):
        self.assertEqual(self.works.end(), (0, b"", ""))

    def test_it_stays_where_all_ranks_are_on_other_machines(self):
        self.assertEqual(self.elsewhere.end(), (0, b"", ""))

    def test_it_stays_while_its_output_waits_for_a_reader(self):
        self.assertEqual(self.unread.end(), (0, b"result\n", ""))

    def test_it_stays_while_it_is_suspended(self):
        self.assertEqual(self.suspended.end(), (0, b"", ""))

    def test_it_stays_while_its_terminal_takes_no_output(self):
        lines = []

        def read():
            try:
                while text := os.read(self.master, 65536):
                    lines.append(text)
            except OSError:  # the other end is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        self.assertEqual(self.terminal.end()[0], 0)
        reader.join()
        self.assertEqual(b"".join(lines).count(b"y\r\n"), 100000)


class Settings(unittest.TestCase):
    def start(self, words, **environment):
        with tempfile.TemporaryDirectory() as place:
            show = "env | grep ^OMPI_MCA_oob_tcp_keepalive | sort | cut -d_ -f6; printf '%s ' \"$@\"; exit 7"
            return Mpirun(f"{place}/mpirun", show, words=words, **environment).end()

    def test_an_mpirun_of_several_machines_keeps_its_words_and_its_exit_code(self):
        code, out, errors = self.start(["mpirun", "-n", "16", "--hostfile", "hosts"])
        self.assertEqual((code, errors), (7, ""))
        self.assertEqual(out.decode().splitlines(), ["intvl=2", "probes=3", "time=5", "-n 16 --hostfile hosts true "])

    def test_what_the_user_has_set_stays(self):
        for words in (["mpirun", "-n", "1"], ["1"]):
            out = self.start(words, OMPI_MCA_oob_tcp_keepalive_time="60")[1]
            self.assertEqual(out.decode().splitlines()[:3], ["intvl=2", "probes=3", "time=60"])

    def test_an_mpirun_that_is_not_there(self):
        done = subprocess.run([SCRIPT, "/nowhere/mpirun", "true"], check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "^scripts/mpirun.sh: /nowhere/mpirun: there is no such program: ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
