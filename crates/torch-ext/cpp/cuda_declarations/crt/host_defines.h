// See README.md. What CUDA's own headers annotate declarations with, as it reads to a compiler for the host.
#pragma once

#define __host__
#define __device__
#define __device_builtin__
#define __device_builtin_surface_type__
#define __device_builtin_texture_type__
#define __cudart_builtin__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_align__(bytes) __align__(bytes)
#define __forceinline__ inline __attribute__((always_inline))
#define __location__(words)
#define CUDARTAPI
#define CUDARTAPI_CDECL
