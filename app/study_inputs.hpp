// The files that a study's runs read, data and the checkpoint of train.start: what they hold now, beside what results
// say that they held.
//
// Data are read and hashed once. After that the study's folder remembers the hashes (study.data) for as long as the
// files keep their length, times and inode.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "app/attributes.hpp"
#include "config/config.hpp"

namespace switchyard {

class StudyInputs {
 public:
  explicit StudyInputs(const std::filesystem::path& study_folder);

  // What a run of this configuration would read otherwise than the run did whose results have these attributes, in
  // words; empty where that is the same. Of files that are not there any more, or cannot be read, nobody can tell: they
  // count as the same.
  std::string differences(const Config& config, const Attributes& results);

 private:
  // data_attributes() of what the configuration reads; null where it reads no files, they are not there, or, which it
  // tells once, cannot be read.
  const Attributes* data_now(const Config& config);
  void read_memory();
  void write_memory() const;

  std::filesystem::path file_;
  std::map<std::string, Attributes> known_;  // by what the data options and the files' states hash to
  std::set<std::string> unreadable_;         // likewise
};

}  // namespace switchyard
