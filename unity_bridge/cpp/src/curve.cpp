#include "worldwire/transport.h"
namespace worldwire {
std::unique_ptr<Transport> make_curve_transport(const CurveKeys&) { return nullptr; }
}  // namespace worldwire
