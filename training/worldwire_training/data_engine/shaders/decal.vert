// One decal of the painted ground, as a quad with room for its soft edge.
in vec4 place;
in vec4 shape;
in vec4 colour;
in vec4 accent;
uniform float half_extent;
out vec2 local;           // metres, in the decal's own axes
out vec2 spot;            // metres, in the scene
flat out vec4 v_place;
flat out vec4 v_shape;
flat out vec4 v_colour;
flat out vec4 v_accent;
void main() {
    vec2 corner = vec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2.0 - 1.0;
    local = corner * (place.zw + shape.z + shape.w);
    float c = cos(shape.x), s = sin(shape.x);
    spot = place.xy + vec2(local.x * c + local.y * s, local.y * c - local.x * s);
    v_place = place; v_shape = shape; v_colour = colour; v_accent = accent;
    gl_Position = vec4(spot / half_extent, 0.0, 1.0);
}
