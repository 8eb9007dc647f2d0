// Strands that take turns on one thread.
#include "core/turns.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "core/error.hpp"

namespace switchyard {
namespace {

TEST(Turns, GoRoundInAFixedOrder) {
  Turns turns(2);
  std::string order;
  for (int again = 0; again < 2; ++again) {
    order.clear();
    turns.take([&](int strand) {
      for (const char* place : {"1", "2", "3"}) {
        order += static_cast<char>('a' + strand) + std::string(place) + " ";
        turns.give("somewhere");
      }
      order += static_cast<char>('a' + strand) + std::string("- ");
    });
    EXPECT_EQ(order, "a1 b1 a2 b2 a3 b3 a- b- ");
  }
}

TEST(Turns, StrandZeroMayHaveMoreToDo) {
  Turns turns(2);
  std::string order;
  turns.take([&](int strand) {
    for (int i = strand; i < 5; i += 2) {
      turns.give("item");
      order += std::to_string(i);
    }
  });
  EXPECT_EQ(order, "01234");
}

TEST(Turns, OneStrandKeepsItsTurn) {
  Turns turns(1);
  int calls = 0;
  turns.take([&](int strand) {
    turns.give("nobody is there");
    calls += 1 + strand;
  });
  turns.give("outside");
  EXPECT_EQ(calls, 1);
}

TEST(Turns, AFailureUnwindsTheOthersAndComesOut) {
  Turns turns(3);
  struct Note {
    std::string& text;
    ~Note() { text += "unwound "; }
  };
  std::string text;
  const auto fail_in = [&](int failing, bool at_once) {
    text.clear();
    try {
      turns.take([&](int strand) {
        const Note note{text};
        if (at_once && strand == failing) fail("strand {}", strand);
        turns.give("first");
        if (strand == failing) throw std::runtime_error("strand " + std::to_string(strand));
        turns.give("second");
        text += "went on ";
      });
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string("nothing came out");
  };
  EXPECT_EQ(fail_in(1, false), "strand 1");
  EXPECT_EQ(text, "unwound unwound unwound ");
  EXPECT_EQ(fail_in(0, true), "strand 0");
  EXPECT_EQ(text, "unwound ") << "the others never began";
  turns.take([&](int) { turns.give("after a failure"); });
}

// Sums that strands add to in turn would otherwise change their order unseen.
TEST(Turns, AreGivenAtTheSamePlacesByAll) {
  Turns turns(2);
  const auto places = [&](std::optional<const char*> of_second) {
    turns.take([&](int strand) {
      if (strand == 0) turns.give("here");
      if (strand == 1 && of_second) turns.give(*of_second);
    });
  };
  places("here");
  places({});  // fewer, as of one item less
  EXPECT_THROW(places("there"), Error);
  EXPECT_THROW(turns.take([&](int strand) {
    if (strand == 1) turns.give("alone");
  }),
               Error);
}

TEST(Turns, HaveAStackEach) {
  Turns turns(2);
  double total = 0;
  turns.take([&](int strand) {
    volatile double large[1 << 17];  // 1 MiB
    large[1000] = strand + 1;
    turns.give("in the middle");
    total += large[1000];
  });
  EXPECT_EQ(total, 3);
}

}  // namespace
}  // namespace switchyard
