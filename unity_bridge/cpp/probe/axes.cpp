// Converts poses both ways: a line of stdin is NAME x y z qx qy qz qw in an engine's axes; a line of stdout is the pose
// on the wire and, from that, the engine's again (14 numbers).
#include <cstdio>
#include <cstring>

#include "probe.h"
#include "worldwire/axes.h"

using namespace worldwire;

namespace {

struct Engine {
  const char* name;
  Pose (*from)(const Vector3&, const Vector4&);
  void (*to)(const Pose&, Vector3*, Vector4*);
};

constexpr Engine kEngines[] = {
    {"unity", from_unity, to_unity},
    {"unreal", from_unreal, to_unreal},
    {"ros", from_ros, to_ros},
    {"opengl", from_opengl, to_opengl},
};

template <std::size_t N>
void print(const std::array<double, N>& values) {
  for (const double value : values) std::printf("%.17g ", value);
}

void convert(const Engine& engine, Vector3 p, Vector4 q) {
  const Pose wire = engine.from(p, q);
  engine.to(wire, &p, &q);
  print(wire.position_m);
  print(wire.quaternion_xyzw);
  print(p);
  print(q);
  std::printf("\n");
}

}  // namespace

int run_axes(const Arguments&) {
  char name[16];
  Vector3 p;
  Vector4 q;
  while (std::scanf("%15s %lf %lf %lf %lf %lf %lf %lf", name, &p[0], &p[1], &p[2], &q[0], &q[1], &q[2], &q[3]) == 8) {
    for (const Engine& engine : kEngines) {
      if (std::strcmp(engine.name, name) == 0) convert(engine, p, q);
    }
  }
  return 0;
}
