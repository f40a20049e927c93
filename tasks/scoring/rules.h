// The rules behind scorer.h, one function per task: prediction and label in, 0..1 out. Each throws
// PythonError where the released Python would raise. They follow section 2 of the specification
// (OpenBMB/InfiniteBench 88b3daa, src/compute_scores.py), the variants are those of the other repositories.
// `model output` may be any JSON value.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/scoring/scorer.h"
#include "tasks/scoring/value.h"

namespace prefill::scoring {

// exact.cpp: answers that must be found as they are
double score_digits(const Value& pred, const Value& label);  ///< passkey, number_string
double score_kv(Profile profile, const Value& pred, const Value& label);
double score_dialogue(const Value& pred, const Value& label);
double score_dialogue_substring(const Value& pred,
                                const Value& labels);  ///< flexprefill: any label, anywhere

// choice.cpp: one of four options
double score_code_debug(const Value& pred, const Value& label);
double score_choice(const Value& pred, const Value& label);

// numbers.cpp
double score_code_run(const Value& pred, const Value& label);
double score_math_find(Profile profile, const Value& pred, const Value& label);
double score_math_calc(Profile profile, const Value& pred, const Value& label, const std::string& model_name);
/// int(text) of Python as canonical decimal: sign, digits of any script, single underscores between digits,
/// white space around. Nothing when Python would raise (also past 4,300 digits).
std::optional<std::string> python_int(std::u32string_view text);

// overlap.cpp: token F1
double score_qa_english(const Value& pred, const Value& labels);
double score_qa_chinese(const Value& pred, const Value& labels);

// rouge.cpp
double score_summary(const Value& pred, const Value& label);
/// F-measure of rougeLsum of google's rouge_score without stemming: lines are what '\n' separates.
double rouge_lsum(std::u32string_view target, std::u32string_view prediction);

// ruler.cpp: string match of NVIDIA/RULER scripts/eval
double score_string_match(const Value& pred, const Value& references, bool all);

// labels.cpp
/// Python's `x in label` for a string x: an equal element of a list, a substring of a string, a key.
bool contains(const Value& label, std::u32string_view x);
/// What `for x in label` walks over: elements, characters, keys. Throws PythonError when not iterable.
std::vector<Value> iterate(const Value& label);
/// FlexPrefill's plumbing (specification 2.13): the data-set schema turns labels into a list of strings, a
/// bare string into its characters; the list travels as one joined string and is split again.
Value flexprefill_label(const Value& label);
/// The label as its key-value scorer sees it: the separators removed again, nothing split.
Value flexprefill_concatenated(const Value& label);

}  // namespace prefill::scoring
