"""Which Python the scripts take, whatever python3 stands first on the path, and what they say where none serves.

python_test.py ROOT PROGRAM [unittest's options]
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT, PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve(), sys.argv.pop(1)
BARE = '#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n'  # no packages: not Debian's either
NONE = "#!/bin/sh\nexit 1\n"


class Python(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="two words ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def run_with(self, *words, path="/usr/bin:/bin", **environment):
        return subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True,
                              env={**os.environ, "PATH": f"{self.folder}/first:{path}", **environment})

    def find(self, *modules):
        words = f'source "{ROOT}/scripts/python.sh"; find_python {" ".join(modules)}'
        return self.run_with("bash", "-c", words)

    def test_the_first_of_the_path_that_has_the_modules(self):
        own = self.write("first/python3", BARE)
        self.assertEqual(self.find("json").stdout, f"{own}\n")
        self.write("first/python3", NONE)
        self.assertEqual(self.find("json").stdout, "/usr/bin/python3\n")
        self.assertEqual((self.find("no_such_module").returncode, self.find("no_such_module").stdout), (1, ""))

    def test_an_environment_that_cannot_be_filled_is_a_skipped_test(self):
        offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": "/dev/null"}
        place = self.folder / "environment"
        done = self.run_with(ROOT / "tests/analysis/newest.sh", place, **offline)
        self.assertEqual(done.returncode, 77, done)
        self.assertRegex(done.stdout, "skipped: .*(not installed|python3-venv)\n$")
        done = self.run_with(sys.executable, "-B", ROOT / "tests/analysis/tables_test.py", ROOT, PROGRAM,
                             SWITCHYARD_ANALYSIS_PYTHON=str(place / "bin/python"))
        self.assertEqual(done.returncode, 77, done)
        self.assertRegex(done.stdout, "^skipped: .*environment/bin/python")

    def test_a_folder_with_something_else_is_left_alone(self):
        own = self.write("mine/notes.txt", "mine")
        done = self.run_with(ROOT / "tests/analysis/newest.sh", own.parent)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
        self.assertIn("holds something else", done.stderr)
        self.assertEqual(os.listdir(own.parent), ["notes.txt"])

    def test_the_report_runs_in_debian_s_where_the_first_lacks_its_libraries(self):
        if subprocess.run(["/usr/bin/python3", "-c", "import h5py, pandas, matplotlib, scipy"], check=False,
                          capture_output=True).returncode != 0:
            self.skipTest("Debian's python3 lacks them, too")
        self.write("first/python3", BARE.replace("/usr/bin/python3", os.path.realpath("/usr/bin/python3")))
        done = self.run_with(ROOT / "analysis/switchyard-report", self.folder / "none")
        self.assertIn("no such folder", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
