#include "app/stop_signals.hpp"

namespace switchyard {

void set_stop_handler(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (int signal : kStopSignals) {
    struct sigaction before {};
    if (signal == SIGHUP && sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
}

void ignore_stop_signals() {
  set_stop_handler(SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);  // nobody reads what is printed any more
}

}  // namespace switchyard
