// Nothing of it is used; `ProcessGroupGloo.hpp` includes it.
#pragma once
