// libtorch contains Gloo but ships none of its headers. This folder declares the names that `ProcessGroupGloo.hpp`
// uses, after Gloo's own headers: only types behind pointers and overridden functions, so that no layout is assumed.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer;
}  // namespace gloo::transport
