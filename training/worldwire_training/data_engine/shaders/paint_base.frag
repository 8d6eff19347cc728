// The bare ground: two colours that drift into each other.
in vec2 screen;
uniform float half_extent;
uniform vec3 base;
uniform vec3 second;
out vec4 pixel;
void main() {
    vec2 spot = (screen * 2.0 - 1.0) * half_extent;
    float drift = 0.65 * noise(spot * 0.16 + 31.0) + 0.35 * noise(spot * 0.55);
    float blade = (noise(spot * 2.2) - 0.5) * 0.05;
    float to_edge = smoothstep(0.72, 0.92, length(spot) / half_extent);
    pixel = vec4(mix(base, second, mix(drift, 0.4, to_edge)) * (1.0 + blade), 1.0);
}
