// The trainer's state on its way to files and back.
#include <algorithm>

#include "io/schema.hpp"
#include "train/trainer.hpp"

namespace switchyard {

std::vector<Network::Companion> Trainer::companions() {
  std::vector<Network::Companion> all;
  for (Optimizer::State& state : optimizer_->states()) all.push_back({"optimizer/" + state.name, state.values.data()});
  return all;
}

void Trainer::save(Ranks& ranks, const std::filesystem::path& path,
                   const std::map<std::string, std::string>& attributes) {
  io::CheckpointInfo info;
  info.step = step_;
  info.config = to_text(config_);
  info.digest = digest();
  info.attributes = data_attributes_;
  if (scores_.step > 0) info.attributes[io::schema::kScores] = to_text(scores_);
  if (!origin_.empty()) info.attributes[io::schema::kOrigin] = origin_;
  if (lacks_evaluation_) info.attributes[io::schema::kEvaluation] = io::schema::kEvaluationDue;
  info.attributes.insert(attributes.begin(), attributes.end());
  network_.save(ranks, path, info, companions());
}

io::CheckpointInfo Trainer::load(Ranks& ranks, const std::filesystem::path& path) {
  const io::CheckpointInfo info = network_.load(ranks, path, companions());
  step_ = info.step;
  const auto scores = info.attributes.find(io::schema::kScores), origin = info.attributes.find(io::schema::kOrigin);
  scores_ = scores == info.attributes.end() ? Scores{} : parse_scores(scores->second);
  origin_ = origin == info.attributes.end() ? "" : origin->second;
  lacks_evaluation_ = info.attributes.contains(io::schema::kEvaluation);
  return info;
}

void Trainer::start_from(Ranks& ranks, const std::filesystem::path& path) {
  const io::CheckpointInfo info = network_.load(ranks, path);
  step_ = 0;
  origin_ = origin_of(path, info);
}

namespace {

constexpr const char* kAfterStep = " after step ";

}  // namespace

std::string origin_of(const std::filesystem::path& path, const io::CheckpointInfo& info) {
  return fmt::format("parameters of {}{}{}, digest {}", path.string(), kAfterStep, info.step, info.digest);
}

bool tells_same_origin(const std::string& a, const std::string& b) {
  const auto place_of = [](const std::string& text) { return std::min(text.rfind(kAfterStep), text.size()); };
  return a.substr(place_of(a)) == b.substr(place_of(b));
}

}  // namespace switchyard
