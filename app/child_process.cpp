#include "app/child_process.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/error.hpp"

namespace switchyard {

ChildProcess::ChildProcess(const std::vector<std::string>& words, const std::filesystem::path& log) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
  if (out < 0) fail("{}: cannot be written ({}): choose a run.out that can be", log.string(), std::strerror(errno));
  const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);  // it ended before prctl
    if (in >= 0) dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(arguments[0], arguments.data());
    dprintf(STDERR_FILENO, "switchyard: %s: cannot be started (%s)\n", arguments[0], std::strerror(errno));
    _exit(127);
  }
  const int reason = errno;
  close(out);
  if (in >= 0) close(in);
  if (pid_ < 0) fail("no process could be started for {} ({})", words[0], std::strerror(reason));
}

ChildProcess::~ChildProcess() {
  send(SIGTERM);
  reap(0);
}

bool ChildProcess::is_running() {
  reap(WNOHANG);
  return pid_ > 0;
}

void ChildProcess::send(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

void ChildProcess::reap(int options) {
  if (pid_ <= 0) return;
  int status = 0;
  struct rusage usage {};
  pid_t ended;
  while ((ended = wait4(pid_, &status, options, &usage)) < 0 && errno == EINTR) {
  }
  if (ended == 0) return;
  exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  peak_bytes_ = Index{1024} * usage.ru_maxrss;  // of it and of all below it that were waited for
  pid_ = -1;
}

}  // namespace switchyard
