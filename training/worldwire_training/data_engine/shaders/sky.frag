// The sky behind a view.
in vec2 screen;
uniform mat3 rays;       // pixel (u, v, 1), each 0..1, to a world direction
uniform sampler2D sky;
out vec4 pixel;
void main() { pixel = vec4(texture(sky, sky_uv(normalize(rays * vec3(screen, 1.0)))).rgb, 1.0); }
