// Poses between the axes of engines and those of the wire: OpenCV axes, x right, y down, z forward, metres, camera to
// world, quaternions x, y, z, w. PROTOCOL.md, section 9. Each pair undoes the other.
#pragma once

#include "worldwire/client.h"

namespace worldwire {

constexpr double kUnrealUnitsPerMetre = 100;  // centimetres

// Unity: x right, y up, z forward, left-handed.
inline Pose from_unity(const Vector3& p, const Vector4& q) { return {{p[0], -p[1], p[2]}, {-q[0], q[1], -q[2], q[3]}}; }
inline void to_unity(const Pose& pose, Vector3* p, Vector4* q) {
  const Pose same = from_unity(pose.position_m, pose.quaternion_xyzw);  // the map is its own inverse
  *p = same.position_m;
  *q = same.quaternion_xyzw;
}

// Unreal: x forward, y right, z up, left-handed, centimetres.
inline Pose from_unreal(const Vector3& p, const Vector4& q) {
  constexpr double m = 1 / kUnrealUnitsPerMetre;
  return {{p[1] * m, -p[2] * m, p[0] * m}, {-q[1], q[2], -q[0], q[3]}};
}
inline void to_unreal(const Pose& pose, Vector3* p, Vector4* q) {
  constexpr double cm = kUnrealUnitsPerMetre;
  const Vector3& w = pose.position_m;
  const Vector4& r = pose.quaternion_xyzw;
  *p = {w[2] * cm, w[0] * cm, -w[1] * cm};
  *q = {-r[2], -r[0], r[1], r[3]};
}

// ROS body axes (FLU): x forward, y left, z up, right-handed.
inline Pose from_ros(const Vector3& p, const Vector4& q) { return {{-p[1], -p[2], p[0]}, {-q[1], -q[2], q[0], q[3]}}; }
inline void to_ros(const Pose& pose, Vector3* p, Vector4* q) {
  const Vector3& w = pose.position_m;
  const Vector4& r = pose.quaternion_xyzw;
  *p = {w[2], -w[0], -w[1]};
  *q = {r[2], -r[0], -r[1], r[3]};
}

// OpenGL, OpenXR, Blender's camera: x right, y up, z backward, right-handed.
inline Pose from_opengl(const Vector3& p, const Vector4& q) { return {{p[0], -p[1], -p[2]}, {q[0], -q[1], -q[2], q[3]}}; }
inline void to_opengl(const Pose& pose, Vector3* p, Vector4* q) {
  const Pose same = from_opengl(pose.position_m, pose.quaternion_xyzw);
  *p = same.position_m;
  *q = same.quaternion_xyzw;
}

}  // namespace worldwire
