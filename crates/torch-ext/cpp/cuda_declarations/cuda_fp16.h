// See README.md. Nothing of it is used.
#pragma once
