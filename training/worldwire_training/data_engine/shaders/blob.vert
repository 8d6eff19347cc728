// A soft dark disc under the walker.
uniform mat4 view_proj;
uniform vec4 stand;
out vec2 local;
const float RADIUS = 0.5;
void main() {
    local = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
    gl_Position = view_proj * vec4(stand.x + local.x * RADIUS, -0.02, stand.y + local.y * RADIUS, 1.0);
}
