// Gloo's exceptions, as far as they are caught. libtorch exports their type information.
#pragma once

#include <stdexcept>

namespace gloo {

struct Exception : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Raised for a lost connection and for a wait that timed out.
struct IoException : Exception {
  using Exception::Exception;
};

}  // namespace gloo
