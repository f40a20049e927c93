#!/usr/bin/env python3
"""`generate | score`: perfect predictions score 1, another sample's answers 0, and prompts have the length that was asked for.

    python3 tests/app/round_trip.py PREFILLBENCH
"""
import json

from program import ProgramTest, main

EXACT = ["passkey", "number_string", "kv_retrieval", "needle_multikey", "ruler/niah_single_1", "ruler/niah_multikey_3", "ruler/vt", "math_find"]
TOKENS = 2400


class RoundTrip(ProgramTest):
    def score(self, task, rows, predictions):
        with open(self.folder / "p.jsonl", "w", encoding="utf-8") as out:
            for row, prediction in zip(rows, predictions):
                out.write(json.dumps({"id": row["id"], "prediction": prediction, "ground_truth": row["answer"]}) + "\n")
        return json.loads(self.ok("score", "--task", task, "--predictions", "p.jsonl", "--json", "--per-example"))["per_example"]

    def test_generated_tasks(self):
        for task in EXACT:
            with self.subTest(task=task):
                self.ok("generate", "--task", task, "--tokens", TOKENS, "--count", 6, "--seed", 11, "--model", "model", "--out", "s.jsonl")
                rows = [json.loads(line) for line in (self.folder / "s.jsonl").read_text(encoding="utf-8").splitlines()]
                self.assertEqual(len(rows), 6)
                for row in rows:
                    # one token a byte under this tokenizer: an independent count
                    self.assertEqual(row["tokens"], len(row["prompt"].encode()))
                    if task.startswith("ruler/") or task == "math_find":
                        self.assertTrue(0.9 * TOKENS <= row["tokens"] <= TOKENS, row["tokens"])
                    else:
                        self.assertEqual(row["tokens"], TOKENS)
                answers = [r["answer"] if isinstance(r["answer"], list) else [r["answer"]] for r in rows]
                said = [" ".join(map(str, a)) for a in answers]
                self.assertEqual(self.score(task, rows, said), [1] * 6, task)
                turned = said[1:] + said[:1]
                wanted = [int(a == b) for a, b in zip(said, turned)]  # a list of small numbers may share its largest
                self.assertLess(sum(wanted), 3, "samples share answers")
                self.assertEqual(self.score(task, rows, turned), wanted, task)

    def test_same_seed_same_bytes(self):
        for name, seed in (("a", 4), ("b", 4), ("c", 5)):
            self.ok("generate", "--task", "passkey", "--tokens", 700, "--seed", seed, "--model", "model", "--out", name)
        a, b, c = ((self.folder / n).read_bytes() for n in "abc")
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)


if __name__ == "__main__":
    main()
