"""`bench`: finds the benchmark programs, hands the filter on, gathers what they measured, and says when a kernel was wrong."""
import json

from program import PROGRAM, ProgramTest, main

FAKE = """#!/usr/bin/env python3
import json, sys
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if "=" in a)
names = NAMES
if "benchmark_list_tests" in options:
    print("\\n".join(names))
    sys.exit()
rows = [{"name": n, "real_time": 1.5, **({"error_occurred": True} if "wrong" in n else {})} for n in names
        if options.get("benchmark_filter", "") in n]
if rows:
    json.dump({"context": {"num_cpus": 2}, "benchmarks": rows}, open(options["benchmark_out"], "w"))
print("console of", sys.argv[0])
"""


class Bench(ProgramTest):
    def programs(self, **names):
        folder = self.folder / "programs"
        folder.mkdir()
        for name, cases in names.items():
            path = folder / name
            path.write_text(FAKE.replace("NAMES", repr(cases)))
            path.chmod(0o755)
        (folder / "bench_notes.txt").write_text("not a program")
        return folder

    def test_gathers_what_all_programs_measured(self):
        folder = self.programs(bench_a=["tiles/d64", "dense/d64"], bench_b=["tiles/d128"])
        out = json.loads(self.ok("bench", "tiles", "--json", "--programs", folder))
        self.assertEqual([(r["program"], r["name"]) for r in out["benchmarks"]],
                         [("bench_a", "tiles/d64"), ("bench_b", "tiles/d128")])
        self.assertEqual(out["context"], {"num_cpus": 2})
        self.assertIn("console of", self.ok("bench", "--programs", folder))
        self.assertEqual(self.ok("bench", "--list", "--programs", folder).split(), ["tiles/d64", "dense/d64", "tiles/d128"])

    def test_a_wrong_kernel_fails_the_run(self):
        folder = self.programs(bench_a=["tiles/d64", "wrong/d64"])
        done = self.call("bench", "--programs", folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of 2", done.stderr)

    def test_says_what_is_missing(self):
        folder = self.programs(bench_a=["tiles/d64"])
        self.assertIn("bench --list", self.call("bench", "nothing", "--programs", folder).stderr)
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn("build", self.refused("bench", "--programs", empty))

    def test_lists_the_programs_of_this_build(self):
        if not list((PROGRAM.parent / "bench").glob("bench_cpu_*")):
            self.skipTest("built without benchmarks (PREFILL_BENCH=OFF)")
        names = self.ok("bench", "--list")
        self.assertIn("dense/torch-sdpa", names)
        self.assertIn("tiles64/density0.1", names)


if __name__ == "__main__":
    main()
