"""The include check finds what it is there to find."""

import pathlib
import tempfile
import unittest

import includes


class IncludesTest(unittest.TestCase):
    def violations_in(self, path, text):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, path)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            return includes.violations(pathlib.Path(folder))

    def test_a_part_may_include_itself_and_what_stands_below(self):
        text = '#include <vector>\n#include <mpi.h>\n#include "model/block.hpp"\n#include "kernels/api/gemm.hpp"\n'
        self.assertEqual(self.violations_in("lib/model/vit.cpp", text), [])

    def test_a_part_above_is_found_with_its_line(self):
        (found,) = self.violations_in("lib/comm/mpi.cpp", '#pragma once\n  # include "model/vit.hpp"\n')
        self.assertEqual(found, "lib/comm/mpi.cpp:2: comm must not include model (model/vit.hpp)")

    def test_neighbours_do_not_see_each_other(self):
        self.assertEqual(len(self.violations_in("lib/io/results.hpp", '#include "config/config.hpp"\n')), 1)
        self.assertEqual(len(self.violations_in("lib/model/vit.hpp", '#include "config/config.hpp"\n')), 1)
        self.assertEqual(len(self.violations_in("kernels/api/gemm.hpp", '#include "comm/communicator.hpp"\n')), 1)

    def test_nobody_includes_an_implementation_of_the_kernels(self):
        for path in ("app/main.cpp", "lib/train/step.cpp", "kernels/cuda/gemm.cu"):
            self.assertEqual(len(self.violations_in(path, '#include "kernels/cpu/vector.hpp"\n')), 1, path)

    def test_angle_brackets_hide_nothing(self):
        self.assertEqual(len(self.violations_in("lib/core/types.hpp", "#include <train/step.hpp>\n")), 1)

    def test_headers_are_named_with_their_part(self):
        self.assertEqual(len(self.violations_in("lib/data/idx.cpp", '#include "idx.hpp"\n')), 1)
        self.assertEqual(len(self.violations_in("lib/data/idx.cpp", '#include "../io/schema.hpp"\n')), 1)

    def test_cuda_is_seen_by_its_kernels_and_by_nccl_alone(self):
        for header in ("cuda_runtime.h", "cuda.h", "cublasLt.h", "nccl.h", "mma.h", "cub/cub.cuh", "cooperative_groups.h"):
            text = f"#include <vector>\n#include <{header}>\n"
            for path in ("kernels/cuda/gemm.cpp", "kernels/cuda/emulated/graphs.cpp", "lib/comm/nccl.cpp"):
                self.assertEqual(self.violations_in(path, text), [], path)
            for path in ("tests/routing/exchange_test.cpp", "lib/comm/nccl.hpp", "lib/core/types.hpp", "app/main.cpp",
                         "kernels/api/gemm.hpp", "kernels/cpu/gemm.cpp", "kernels/dispatch.cpp"):
                (found,) = self.violations_in(path, text)
                self.assertTrue(found.startswith(f"{path}:2: {header} is CUDA's"), found)

    def test_tests_may_include_every_part(self):
        text = '#include "kernels/cuda/emulated/streams.hpp"\n#include "app/main.hpp"\n#include "support.hpp"\n'
        self.assertEqual(self.violations_in("tests/routing/exchange_test.cpp", text), [])

    def test_a_folder_without_a_rule_is_found(self):
        self.assertEqual(len(self.violations_in("lib/extras/tool.cpp", "")), 1)


if __name__ == "__main__":
    unittest.main()
