// HDF5 data: groups `train` and `test`, each with `images`, uint8 (N, H, W, C) or (N, H, W), and `labels`, any integer
// (N). Classes: the file's attribute `classes`, otherwise 1 + the largest label, which must then be plausible.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <new>
#include <set>

#include "core/error.hpp"
#include "core/h5.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

constexpr Index kMostClasses = 1 << 24;                                    // by the attribute `classes`
constexpr Index kMostGuessedClasses = 65536;                               // by the labels alone
constexpr double kMostValues = 4096.0 * 4096 * 4;                          // of an image
constexpr Index kMostSamples = std::numeric_limits<std::uint32_t>::max();  // of a split: orders are of 32-bit numbers

// One dataset: opened, its shape known and found plausible.
class ArrayFile {
 public:
  ArrayFile(hid_t file, const std::string& path, const std::string& name)
      : where_(path + ":" + name),
        dataset_(h5::open_dataset(file, name)),
        type_(dataset_.is_open() ? H5Dget_type(dataset_) : -1, H5Tclose),
        is_elsewhere_(dataset_.is_open() && h5::is_elsewhere(dataset_)),
        space_(dataset_.is_open() && !is_elsewhere_ ? H5Dget_space(dataset_) : -1, H5Sclose) {
    // HDF5 would open the other files even to tell the shape.
    if (is_elsewhere_)
      fail("{}: its values lie in another file (external raw storage, or a virtual dataset): copy them into this one.",
           where_);
    if (!dataset_.is_open() || !type_.is_open() || !space_.is_open())
      fail(
          "{}: there is no such dataset, or it is damaged ({}): the file needs train/images, train/labels, test/images "
          "and test/labels.",
          where_, h5::last_message());
    const int rank = H5Sget_simple_extent_ndims(space_);
    shape_.resize(static_cast<std::size_t>(std::max(rank, 0)));
    if (rank > 0) H5Sget_simple_extent_dims(space_, shape_.data(), nullptr);
  }

  const std::string& where() const { return where_; }
  const std::vector<hsize_t>& shape() const { return shape_; }
  std::string shape_text() const {
    std::string text;
    for (const hsize_t size : shape_) text += fmt::format("{}{}", text.empty() ? "" : ", ", size);
    return "(" + text + ")";
  }
  // Of the first dimension, which the format keeps below 2^64.
  Index num_samples() const {
    if (shape_.empty()) fail("{}: is a single value, without a dimension that counts samples.", where_);
    return static_cast<Index>(std::min(shape_[0], static_cast<hsize_t>(std::numeric_limits<Index>::max())));
  }
  bool is_integer() const { return H5Tget_class(type_) == H5T_INTEGER; }
  bool is_uint8() const { return is_integer() && H5Tget_size(type_) == 1 && H5Tget_sign(type_) == H5T_SGN_NONE; }

  // A shape costs nothing to declare.
  void require_stored() const {
    double declared = static_cast<double>(H5Tget_size(type_));
    for (const hsize_t size : shape_) declared *= static_cast<double>(size);
    if (declared > h5::most_bytes(dataset_))
      fail(
          "{}: shape {} declares {:.0f} bytes, but the file holds {:.0f} of them: it was never fully written: write it "
          "anew.",
          where_, shape_text(), declared, h5::most_bytes(dataset_));
  }

  // `count` along the first dimension, from `first` on.
  void read(hsize_t first, hsize_t count, hid_t memory_type, void* target) const {
    std::vector<hsize_t> start(shape_.size(), 0), size = shape_;
    start[0] = first;
    size[0] = count;
    const h5::Handle memory(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr), H5Sclose);
    if (H5Sselect_hyperslab(space_, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr) < 0 ||
        H5Dread(dataset_, memory_type, memory, space_, H5P_DEFAULT, target) < 0)
      fail_to_read(h5::last_message());
  }

 private:
  [[noreturn]] void fail_to_read(const std::string& reason) const {
    const h5::Handle creation(H5Dget_create_plist(dataset_), H5Pclose);
    for (int i = 0; i < H5Pget_nfilters(creation); ++i) {
      unsigned flags = 0;
      std::size_t num_values = 0;
      char name[64] = {};
      const H5Z_filter_t filter =
          H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &num_values, nullptr, sizeof(name), name, nullptr);
      if (filter >= 0 && H5Zfilter_avail(filter) <= 0)
        fail(
            "{}: is compressed with the filter {} ({}), which this machine's HDF5 library does not have: write it "
            "anew, with gzip (h5py's compression=\"gzip\") or as it is.",
            where_, filter, name[0] ? name : "without a name");
    }
    fail("{}: reading failed ({}): the file is truncated or corrupt.", where_, reason);
  }

  std::string where_;
  h5::Handle dataset_, type_;
  bool is_elsewhere_;
  h5::Handle space_;
  std::vector<hsize_t> shape_;
};

struct Shape {
  Index height = 0, width = 0, channels = 0;
  bool operator==(const Shape&) const = default;
};

Shape image_shape(const ArrayFile& images) {
  const std::vector<hsize_t>& shape = images.shape();
  if (!images.is_uint8()) fail("{}: the type is not uint8: write pixels as unsigned bytes, 0 to 255.", images.where());
  if (shape.size() != 3 && shape.size() != 4)
    fail("{}: shape {} is neither (N, H, W, C) nor (N, H, W).", images.where(), images.shape_text());
  const hsize_t channels = shape.size() == 4 ? shape[3] : 1;
  if (shape[0] == 0) fail("{}: holds no image.", images.where());
  if (shape[1] == 0 || shape[2] == 0 || channels == 0)
    fail("{}: shape {} has a size of zero.", images.where(), images.shape_text());
  if (channels > 4)
    fail("{}: shape {} means {} channels, and at most 4 are allowed: the order is (N, H, W, C).", images.where(),
         images.shape_text(), channels);
  const double values = static_cast<double>(shape[1]) * static_cast<double>(shape[2]) * static_cast<double>(channels);
  if (values > kMostValues)
    fail("{}: shape {} means {:.0f} values an image, and at most {:.0f} are allowed: make images smaller.",
         images.where(), images.shape_text(), values, kMostValues);
  return {static_cast<Index>(shape[1]), static_cast<Index>(shape[2]), static_cast<Index>(channels)};
}

// A file of zeros may unpack to a thousand times its length, which Linux grants and then ends somebody for.
void require_memory(Index bytes) {
  if (bytes / sysconf(_SC_PAGESIZE) >= sysconf(_SC_PHYS_PAGES)) throw std::bad_alloc();
}

// All labels are read, whatever the limit: the number of classes must not depend on it.
std::vector<std::int32_t> read_labels(const ArrayFile& labels, const ArrayFile& images) {
  if (!labels.is_integer()) fail("{}: the type is not an integer: write class numbers.", labels.where());
  if (labels.shape().size() != 1) fail("{}: shape {} is not (N).", labels.where(), labels.shape_text());
  if (labels.num_samples() != images.num_samples())
    fail("{}: {} labels, but {} has {} images.", labels.where(), labels.num_samples(), images.where(),
         images.num_samples());
  labels.require_stored();
  constexpr Index kBlock = Index{1} << 20;
  const Index count = labels.num_samples();
  require_memory(count * Index{sizeof(std::int32_t)});
  std::vector<std::int64_t> wide(static_cast<std::size_t>(std::min(count, kBlock)));
  std::vector<std::int32_t> result;
  result.reserve(static_cast<std::size_t>(count));
  for (Index first = 0; first < count; first += kBlock) {
    wide.resize(static_cast<std::size_t>(std::min(kBlock, count - first)));
    labels.read(static_cast<hsize_t>(first), wide.size(), H5T_NATIVE_INT64, wide.data());
    for (const std::int64_t label : wide) {
      if (label < 0 || label >= kMostClasses)
        fail("{}: label {} of sample {} is out of range: labels go from 0 to {} at most.", labels.where(), label,
             result.size(), kMostClasses - 1);
      result.push_back(static_cast<std::int32_t>(label));
    }
  }
  return result;
}

Split read_split(hid_t file, const std::string& path, const std::string& group, Index limit, Shape& shape) {
  const ArrayFile images(file, path, group + "/images"), labels(file, path, group + "/labels");
  shape = image_shape(images);
  Split split;
  split.count = limited(images.num_samples(), limit);
  if (split.count > kMostSamples)
    fail("{}: {} samples, and at most {} are allowed: set data.limit to take only the first ones.", images.where(),
         split.count, kMostSamples);
  split.labels = read_labels(labels, images);
  images.require_stored();
  const Index bytes = split.count * shape.height * shape.width * shape.channels;
  require_memory(bytes);
  split.images.resize(static_cast<std::size_t>(bytes));
  images.read(0, static_cast<hsize_t>(split.count), H5T_NATIVE_UINT8, split.images.data());
  return split;
}

// The attribute `classes`, or 0 when the file has none.
Index read_classes(hid_t file, const std::string& path) {
  if (H5Aexists(file, "classes") <= 0) return 0;
  const auto classes = h5::read_integer(file, "classes");
  if (!classes || *classes < 1 || *classes > kMostClasses)
    fail("{}: the attribute `classes` is not a whole number from 1 to {}.", path, kMostClasses);
  return *classes;
}

// 1 + the largest label of both splits. One stray label would make a model of millions of classes, so either there are
// as many samples as classes, or the file says how many there are.
Index guess_classes(const Dataset& data, const std::string& path) {
  const auto num_samples = static_cast<Index>(data.train.labels.size() + data.test.labels.size());
  const Index most = std::min(num_samples, kMostGuessedClasses);
  Index classes = 0;
  const auto add = [&](const std::vector<std::int32_t>& labels, const char* name) {
    if (labels.empty()) return;
    const auto largest = std::max_element(labels.begin(), labels.end());
    classes = std::max<Index>(classes, *largest + 1);
    if (classes > most)
      fail(
          "{}:{}: label {} of sample {} means {} classes, where {} samples may have {}: correct the label, or give the "
          "file an attribute `classes` with their number.",
          path, name, *largest, largest - labels.begin(), classes, num_samples, most);
  };
  add(data.train.labels, "train/labels");
  add(data.test.labels, "test/labels");
  return classes;
}

}  // namespace

std::vector<std::string> hdf5_files(const std::string& path) {
  h5::silence();
  h5::ReadFile file(path);
  if (!file.open(H5F_ACC_RDONLY, h5::unlocked_access())) return {path};
  std::set<std::string> files = {path};
  for (const char* name : {"train/images", "train/labels", "test/images", "test/labels"})
    if (const h5::Handle dataset = h5::open_dataset(file, name); dataset.is_open())
      files.insert(h5::name_of_file(dataset));
  return {files.begin(), files.end()};
}

Dataset load_hdf5(const std::string& path, const DataOptions& options) {
  h5::silence();
  const h5::Handle access = h5::unlocked_access();
  h5::ReadFile file(path);
  if (!file.open(H5F_ACC_RDONLY, access)) fail("{}: cannot open this as an HDF5 file: {}.", path, h5::last_message());

  Dataset data{.name = "hdf5"};
  data.classes = read_classes(file, path);
  Shape train_shape, test_shape;
  if (!options.test_only)
    data.train = read_split(file, path, "train", options.limit, train_shape);
  else if (data.classes == 0 &&
           H5Lexists(file, "train", H5P_DEFAULT) > 0)  // its labels tell how many classes there are
    data.train.labels = read_labels({file, path, "train/labels"}, {file, path, "train/images"});
  data.test = read_split(file, path, "test", options.limit, test_shape);
  if (!options.test_only && !(train_shape == test_shape))
    fail("{}: images of train are {} x {} x {}, those of test {} x {} x {}: they must agree.", path, train_shape.height,
         train_shape.width, train_shape.channels, test_shape.height, test_shape.width, test_shape.channels);
  data.height = test_shape.height;
  data.width = test_shape.width;
  data.channels = test_shape.channels;
  if (data.classes == 0) data.classes = guess_classes(data, path);
  check_labels(data.train, data.classes, path + ":train/labels");
  check_labels(data.test, data.classes, path + ":test/labels");
  data.train.labels.resize(static_cast<std::size_t>(data.train.count));
  data.test.labels.resize(static_cast<std::size_t>(data.test.count));
  return data;
}

}  // namespace switchyard
