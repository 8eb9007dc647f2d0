// IDX files of MNIST and its relatives, gzip or not. Header: two zero bytes, the type (8: unsigned byte), the number of
// dimensions, then each dimension as a big-endian 32-bit number; the bytes follow.
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "core/error.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

constexpr Index kSide = 28, kClasses = 10;

// zlib reads a file without gzip's header as it is, so one reader serves both.
class IdxFile {
 public:
  explicit IdxFile(std::string path) : path_(std::move(path)), file_(gzopen(path_.c_str(), "rb")) {
    if (!file_) fail("{}: cannot open this file: {}.", path_, std::strerror(errno));
    gzbuffer(file_.get(), 1u << 17);
  }

  // Header and dimensions; the first one counts samples.
  std::vector<Index> read_dimensions(int num_dimensions) {
    std::vector<std::uint8_t> header;
    read(4 + 4 * num_dimensions, header, "the header");
    if (header[0] != 0 || header[1] != 0 || header[2] != 8 || header[3] != num_dimensions)
      fail(
          "{}: begins with {:02x} {:02x} {:02x} {:02x} where an IDX file of bytes in {} dimensions has 00 00 08 "
          "{:02x}: "
          "this is another kind of file, or a damaged one.",
          path_, header[0], header[1], header[2], header[3], num_dimensions, num_dimensions);
    std::vector<Index> dimensions;
    for (std::size_t at = 4; at < header.size(); at += 4)
      dimensions.push_back((Index{header[at]} << 24) | (Index{header[at + 1]} << 16) | (Index{header[at + 2]} << 8) |
                           Index{header[at + 3]});
    return dimensions;
  }

  // Grows `bytes` only as the file delivers: a header may claim more than there is.
  void read(Index num_bytes, std::vector<std::uint8_t>& bytes, const std::string& what) {
    constexpr Index kChunk = Index{1} << 20;
    for (Index done = 0; done < num_bytes;) {
      const Index wanted = std::min(kChunk, num_bytes - done);
      bytes.resize(static_cast<std::size_t>(done + wanted));
      const int got = gzread(file_.get(), bytes.data() + done, static_cast<unsigned>(wanted));
      check_stream();
      if (got != wanted)
        fail("{}: truncated: {} takes {} bytes, but the file holds {}: get it anew.", path_, what, num_bytes,
             done + std::max(got, 0));
      done += wanted;
    }
  }

  void expect_end() {
    char extra = 0;
    const int got = gzread(file_.get(), &extra, 1);
    check_stream();
    if (got > 0) fail("{}: longer than its header says: this file is damaged, get it anew.", path_);
  }

  const std::string& path() const { return path_; }

 private:
  void check_stream() {
    int code = Z_OK;
    const char* const reason = gzerror(file_.get(), &code);
    if (code == Z_ERRNO) fail("{}: reading failed: {}.", path_, std::strerror(errno));
    if (code == Z_BUF_ERROR) fail("{}: truncated: the gzip data ends too early: get it anew.", path_);
    if (code != Z_OK && code != Z_STREAM_END) fail("{}: corrupt gzip data ({}): get the file anew.", path_, reason);
  }

  struct Close {
    void operator()(gzFile_s* file) const { gzclose(file); }
  };
  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
};

// train-images-idx3-ubyte, or with a dot before idx, each with or without .gz
std::string find_file(const std::string& folder, const std::string& stem, int num_dimensions, const std::string& kind) {
  const std::string tail = fmt::format("idx{}-ubyte", num_dimensions);
  for (const char* separator : {"-", "."})
    for (const char* suffix : {".gz", ""}) {
      const std::string path = fmt::format("{}/{}{}{}{}", folder, stem, separator, tail, suffix);
      std::error_code ignored;
      if (std::filesystem::is_regular_file(path, ignored)) return path;
    }
  fail("{}/{}-{}.gz: there is no such file, nor {}.{}, with .gz or without. {}", folder, stem, tail, stem, tail,
       how_to_get(kind, folder));
}

struct SplitFiles {
  std::string images, labels;
  SplitFiles(const std::string& folder, const std::string& stem, const std::string& kind)
      : images(find_file(folder, stem + "-images", 3, kind)), labels(find_file(folder, stem + "-labels", 1, kind)) {}
};

Split read_split(const SplitFiles& files, const std::string& kind, Index limit) {
  IdxFile images(files.images), labels(files.labels);
  const std::vector<Index> shape = images.read_dimensions(3);
  const Index count = shape[0], num_labels = labels.read_dimensions(1)[0];
  if (count == 0) fail("{}: holds no image.", images.path());
  if (shape[1] != kSide || shape[2] != kSide)
    fail(
        "{}: images of {} x {} pixels where data.kind = {} has {} x {}: put other sizes into an HDF5 file "
        "(data.kind = hdf5).",
        images.path(), shape[1], shape[2], kind, kSide, kSide);
  if (count != num_labels)
    fail("{}: {} images, but {} has {} labels: these files do not belong together.", images.path(), count,
         labels.path(), num_labels);

  Split split;
  split.count = limited(count, limit);
  images.read(split.count * kSide * kSide, split.images, fmt::format("{} images", split.count));
  std::vector<std::uint8_t> label_bytes;
  labels.read(split.count, label_bytes, fmt::format("{} labels", split.count));
  if (split.count == count) {
    images.expect_end();
    labels.expect_end();
  }
  split.labels.assign(label_bytes.begin(), label_bytes.end());
  check_labels(split, kClasses, labels.path());
  return split;
}

constexpr const char *kTrain = "train", *kTest = "t10k";

}  // namespace

std::vector<std::string> idx_files(const std::string& path, const std::string& kind) {
  const SplitFiles train(path, kTrain, kind), test(path, kTest, kind);
  return {train.images, train.labels, test.images, test.labels};
}

Dataset load_idx(const std::string& path, const DataOptions& options) {
  const std::string& kind = options.kind;
  return {.name = kind,
          .height = kSide,
          .width = kSide,
          .channels = 1,
          .classes = kClasses,
          .train = options.test_only ? Split{} : read_split({path, kTrain, kind}, kind, options.limit),
          .test = read_split({path, kTest, kind}, kind, options.limit)};
}

}  // namespace switchyard
