#include "core/ranks.hpp"

#include <array>
#include <cstddef>

namespace switchyard {

void all_gather(Ranks& ranks, std::string_view what, const void* send, Index bytes, void* receive) {
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < ranks.size(); ++peer)
    transfers.push_back({peer, send, bytes, static_cast<std::byte*>(receive) + peer * bytes, bytes});
  ranks.exchange(what, transfers);
}

void broadcast(Ranks& ranks, std::string_view what, void* data, Index bytes, int root) {
  std::vector<Transfer> transfers;
  if (ranks.rank() == root) {
    for (int peer = 0; peer < ranks.size(); ++peer)
      if (peer != root) transfers.push_back({peer, data, bytes, nullptr, 0});
  } else {
    transfers.push_back({root, nullptr, 0, data, bytes});
  }
  ranks.exchange(what, transfers);
}

void barrier(Ranks& ranks, std::string_view what) { any(ranks, what, false); }

bool any(Ranks& ranks, std::string_view what, bool mine) {
  // Dissemination: after round k a rank has heard, directly or not, from 2^k ranks before it.
  char known = mine;
  for (int distance = 1; distance < ranks.size(); distance *= 2) {
    const int to = (ranks.rank() + distance) % ranks.size();
    const int from = (ranks.rank() - distance + ranks.size()) % ranks.size();
    char heard = 0;
    if (to == from) {
      const Transfer both{to, &known, 1, &heard, 1};
      ranks.exchange(what, std::span(&both, 1));
    } else {
      const std::array<Transfer, 2> transfers{Transfer{to, &known, 1, nullptr, 0},
                                              Transfer{from, nullptr, 0, &heard, 1}};
      ranks.exchange(what, transfers);
    }
    known = static_cast<char>(known | heard);
  }
  return known != 0;
}

std::vector<std::string> gather_texts(Ranks& ranks, std::string_view what, const std::string& text) {
  const Index length = static_cast<Index>(text.size());
  std::vector<Index> lengths(static_cast<std::size_t>(ranks.size()));
  all_gather(ranks, what, &length, sizeof(length), lengths.data());
  std::vector<std::string> texts;
  std::vector<Transfer> transfers;
  if (ranks.rank() == 0) {
    for (Index each : lengths) texts.emplace_back(static_cast<std::size_t>(each), '\0');
    texts[0] = text;
    for (int peer = 1; peer < ranks.size(); ++peer) {
      const auto i = static_cast<std::size_t>(peer);
      transfers.push_back({peer, nullptr, 0, texts[i].data(), lengths[i]});
    }
  } else {
    transfers.push_back({0, text.data(), length, nullptr, 0});
  }
  ranks.exchange(what, transfers);
  return texts;
}

std::string broadcast_text(Ranks& ranks, std::string_view what, const std::string& text) {
  Index length = static_cast<Index>(text.size());
  broadcast(ranks, what, &length, sizeof(length), 0);
  std::string received = ranks.rank() == 0 ? text : std::string(static_cast<std::size_t>(length), '\0');
  broadcast(ranks, what, received.data(), length, 0);
  return received;
}

}  // namespace switchyard
