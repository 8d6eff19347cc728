// One triangle over the whole target; (0, 0) is where memory begins.
#version 330
out vec2 display;
void main() {
    display = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
    gl_Position = vec4(display * 2.0 - 1.0, 0.0, 1.0);
}
