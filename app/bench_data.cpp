#include "app/bench_data.hpp"

#include "app/session.hpp"
#include "core/random.hpp"

namespace switchyard {

Dataset data_for_bench(const Config& config) {
  const std::optional<ImageShape> shape = known_shape(data_options(config));
  if (!shape || config.data.kind == "clusters") return load_dataset(data_options(config));
  Dataset data{"random images", shape->height, shape->width, shape->channels, shape->classes};
  data.train.count = config.train.batch;
  data.test.count = 1;
  for (Split* split : {&data.train, &data.test}) {
    split->images.resize(static_cast<std::size_t>(split->count * shape->height * shape->width * shape->channels));
    for (std::size_t i = 0; i < split->images.size(); ++i)
      split->images[i] = static_cast<std::uint8_t>(random_words({}, 1, static_cast<std::uint32_t>(i))[0]);
    for (Index i = 0; i < split->count; ++i) split->labels.push_back(static_cast<std::int32_t>(i % shape->classes));
  }
  return data;
}

}  // namespace switchyard
