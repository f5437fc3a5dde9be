// SPDX-License-Identifier: Apache-2.0
// Whether what programs must not do, and hardware would not notice, is looked for: races in LDS, and the like.
#pragma once

namespace amdgpu {

// Of the whole process; changed only while nothing runs.
inline bool checking = true;

}  // namespace amdgpu
