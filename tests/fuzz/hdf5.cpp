// An HDF5 file of images and labels.
#include "fuzz/datasets.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const fuzz::Folder folder;
  const std::string path = folder.write("input.h5", bytes);
  for (const unsigned options : {0u, 1u, 2u, 4u})
    fuzz::tolerate_errors([&] { fuzz::load({.kind = "hdf5", .path = path}, options); });
}

}  // namespace switchyard
