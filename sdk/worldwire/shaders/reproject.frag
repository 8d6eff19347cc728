// The frame as a camera sees it that turned since; the formula is that of worldwire/reprojection.py.
#version 330
in vec2 display;          // 0..1 from the upper left of what is shown
out vec4 colour;
uniform sampler2D frame;  // bilinear, clamped to its edges, row 0 is the upper one
uniform mat3 to_frame;    // display (u, v, 1) to the frame's (u, v, 1) times its depth
uniform vec4 outside;     // where the frame has nothing to show
void main() {
    vec3 ray = to_frame * vec3(display, 1.0);
    vec2 uv = ray.xy / ray.z;
    bool seen = ray.z > 0.0 && all(greaterThanEqual(uv, vec2(0.0))) && all(lessThanEqual(uv, vec2(1.0)));
    colour = seen ? vec4(textureLod(frame, uv, 0.0).rgb, 1.0) : outside;
}
