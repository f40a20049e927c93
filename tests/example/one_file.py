#!/usr/bin/env python3
"""A method is one file: the program that was built with one file less and another one more.

    one_file.py PREFILLBENCH PREFILLBENCH_SWAPPED
"""
import json
import subprocess
import sys
import unittest

WHOLE, SWAPPED = sys.argv.pop(1), sys.argv.pop(1)


def call(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def methods(program):
    said = call(program, "list", "methods", "--json")
    assert said.returncode == 0, said.stderr
    rows = json.loads(said.stdout)
    return {row["name"] for row in (rows if isinstance(rows, list) else rows["methods"])}


class OneFile(unittest.TestCase):
    def test_list_loses_the_one_and_gains_the_other(self):
        whole, swapped = methods(WHOLE), methods(SWAPPED)
        self.assertEqual(whole - swapped, {"trishape"})
        self.assertEqual(swapped - whole, {"window_topk"})

    def test_all_others_are_described_as_before(self):
        for name in sorted(methods(WHOLE) & methods(SWAPPED)):
            said = [call(p, "describe", name, "--json") for p in (WHOLE, SWAPPED)]
            self.assertEqual(said[0].returncode, 0, said[0].stderr)
            self.assertEqual(said[0].stdout, said[1].stdout, name)

    def test_what_went_is_unknown_and_what_came_is_known(self):
        gone = call(SWAPPED, "describe", "trishape")
        self.assertEqual(gone.returncode, 2)
        self.assertIn("trishape", gone.stderr)
        came = call(SWAPPED, "describe", "window_topk")
        self.assertEqual(came.returncode, 0)
        self.assertIn("top_tiles", came.stdout)


if __name__ == "__main__":
    unittest.main()
