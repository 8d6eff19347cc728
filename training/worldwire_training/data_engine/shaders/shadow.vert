// Depth of a scene as the sun sees it.
in vec3 position;
uniform mat4 view_proj;
void main() { gl_Position = view_proj * vec4(position, 1.0); }
