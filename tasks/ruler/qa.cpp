// RULER's question answering: the gold documents among others (NVIDIA/RULER c3f5e3b, qa.py). The data sets
// are not part of this project: the user gives SQuAD's dev-v2.0.json (qa_1) or HotpotQA's dev distractor file
// (qa_2).
#include <algorithm>
#include <map>
#include <memory>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/text.h"
#include "tasks/generated/generated_task.h"

namespace prefill {
namespace {

struct Question {
  std::string text;
  std::vector<std::string> answers;
  std::vector<size_t> gold, near;  // documents: with the answer; of the same article
};
struct Corpus {
  std::vector<std::string> documents;  // sorted, without repeats
  std::vector<Question> questions;
};

size_t document(std::map<std::string, size_t>& ids, const std::string& text) {
  return ids.emplace(text, ids.size()).first->second;
}

// Unanswerable questions are skipped.
Corpus read_squad(const nlohmann::json& file) {
  Corpus c;
  std::map<std::string, size_t> ids;
  for (const auto& article : file.at("data")) {
    std::vector<size_t> paragraphs;
    for (const auto& p : article.at("paragraphs")) paragraphs.push_back(document(ids, p.at("context")));
    size_t at = 0;
    for (const auto& p : article.at("paragraphs")) {
      const size_t gold = paragraphs[at++];
      for (const auto& qa : p.at("qas")) {
        if (qa.value("is_impossible", false)) continue;
        Question q{qa.at("question"), {}, {gold}, {}};
        for (const auto& a : qa.at("answers")) q.answers.push_back(a.at("text"));
        for (size_t other : paragraphs)
          if (other != gold) q.near.push_back(other);
        if (!q.answers.empty()) c.questions.push_back(std::move(q));
      }
    }
  }
  c.documents.resize(ids.size());
  for (const auto& [text, id] : ids) c.documents[id] = text;
  return c;
}

Corpus read_hotpot(const nlohmann::json& file) {
  Corpus c;
  std::map<std::string, size_t> ids;
  for (const auto& item : file) {
    Question q{item.at("question"), {item.at("answer")}, {}, {}};
    for (const auto& entry : item.at("context")) {
      std::string text = entry.at(0).get<std::string>() + "\n";
      for (const auto& sentence : entry.at(1)) text += sentence.get<std::string>();
      q.gold.push_back(document(ids, text));  // all ten, as RULER keeps them together
    }
    c.questions.push_back(std::move(q));
  }
  c.documents.resize(ids.size());
  for (const auto& [text, id] : ids) c.documents[id] = text;
  return c;
}

class DocumentQa : public GeneratedTask {
 public:
  struct Params {
    Path file;
    int max_new_tokens = 0;
    template <class V>
    void fields(V& v) {
      v("file", file, any(),
        "the data set: SQuAD dev-v2.0.json for qa_1, HotpotQA dev distractor JSON for qa_2");
      v("max_new_tokens", max_new_tokens, at_least(0), "limit of the answer; 0: RULER's 32");
    }
    std::string invalid() const { return ""; }
  };

  nlohmann::json provenance() const override {
    return {{"file", file_}, {"sha256", sha256_}, {"n", corpus_->questions.size()}};
  }

 protected:
  DocumentQa(const char* task, bool hotpot, const Params& p, const TaskRequest& r)
      : GeneratedTask(task, task, r, 32, p.max_new_tokens, 0) {
    if (p.file.text.empty())
      throw Unsupported(str(task, " needs a data set that is not part of this project: set file to ",
                            hotpot ? "HotpotQA's hotpot_dev_distractor_v1.json" : "SQuAD's dev-v2.0.json"));
    const std::string bytes = read_file(p.file.text);
    try {
      const auto json = nlohmann::json::parse(bytes);
      corpus_ = std::make_shared<Corpus>(hotpot ? read_hotpot(json) : read_squad(json));
    } catch (const nlohmann::json::exception& e) {
      throw InputError(str(p.file.text, ": not the ", hotpot ? "HotpotQA" : "SQuAD", " format: ", e.what()));
    }
    if (corpus_->questions.empty()) throw InputError(str(p.file.text, ": no answerable questions"));
    file_ = p.file.text.substr(p.file.text.find_last_of('/') + 1);
    sha256_ = sha256_hex(bytes);
  }

  int64_t min_units() const override { return hot_minimum(); }

  Draft build(int64_t index, int64_t units, const std::string& padding) const override {
    const Question& q = corpus_->questions[size_t(index) % corpus_->questions.size()];
    Rng random = rng(index);
    std::vector<size_t> chosen = q.gold, rest;
    std::vector<bool> used(corpus_->documents.size());
    for (size_t d : chosen) used[d] = true;
    std::vector<size_t> near = q.near;
    random.shuffle(near);
    for (size_t d = 0; d < used.size(); ++d) rest.push_back(d);
    random.shuffle(rest);
    near.insert(near.end(), rest.begin(), rest.end());
    for (size_t d : near) {
      if (int64_t(chosen.size()) >= units) break;
      if (!used[d]) chosen.push_back(d);
      used[d] = true;
    }
    // a corpus that is used up is read again, as a longer text needs more
    for (size_t i = 0; int64_t(chosen.size()) < units; ++i) chosen.push_back(rest[i % rest.size()]);
    random.shuffle(chosen);
    std::string context = padded(padding, "\n\n");
    for (size_t i = 0; i < chosen.size(); ++i)
      context += str(i ? "\n\n" : "", "Document ", i + 1, ":\n", corpus_->documents[chosen[i]]);
    Draft d;
    const std::string input = "Question: " + q.text;
    d.prompt =
        str("Answer the question from the documents below. Give the answer alone and nothing else.\n\n",
            context, "\n\n", input, "\nAnswer:");
    d.record = {{"context", context}, {"input", input}, {"answer", q.answers}};
    return d;
  }

 private:
  int64_t hot_minimum() const {
    size_t most = 1;
    for (const auto& q : corpus_->questions) most = std::max(most, q.gold.size());
    return int64_t(most);
  }
  std::shared_ptr<const Corpus> corpus_;
  std::string file_, sha256_;
};

struct Squad : DocumentQa {
  Squad(const Params& p, const TaskRequest& r) : DocumentQa("ruler/qa_1", false, p, r) {}
};
struct Hotpot : DocumentQa {
  Hotpot(const Params& p, const TaskRequest& r) : DocumentQa("ruler/qa_2", true, p, r) {}
};
const RegisterTask<Squad> qa_1{{.name = "ruler/qa_1",
                                .doc = "question about one of many documents (SQuAD file of the user)",
                                .source = "NVIDIA/RULER c3f5e3b, qa.py",
                                .version = 2,
                                .generated = true},
                               __FILE__};
const RegisterTask<Hotpot> qa_2{
    {.name = "ruler/qa_2",
     .doc = "question about several of many documents (HotpotQA file of the user)",
     .source = "NVIDIA/RULER c3f5e3b, qa.py",
     .version = 2,
     .generated = true},
    __FILE__};

}  // namespace
}  // namespace prefill
