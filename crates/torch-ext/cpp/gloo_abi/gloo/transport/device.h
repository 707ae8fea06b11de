// libtorch contains Gloo and ships none of its headers. What `ProcessGroupGloo.hpp` names is declared in this folder, after
// Gloo's own headers, and only what is used behind pointers or overridden, so that no layout is guessed.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
}  // namespace gloo::transport
