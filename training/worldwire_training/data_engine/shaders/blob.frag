in vec2 local;
out vec4 pixel;
void main() { pixel = vec4(vec3(1.0 - 0.55 * smoothstep(1.0, 0.2, length(local))), 1.0); }
