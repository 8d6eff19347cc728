// Fills a decal: a rounded rectangle with a soft, perhaps wobbly edge and a pattern (or a shade, or a lamp's pool).
in vec2 local;
in vec2 spot;
flat in vec4 v_place;
flat in vec4 v_shape;
flat in vec4 v_colour;
flat in vec4 v_accent;
uniform bool lighting;
out vec4 pixel;
const int PLANKS = 1, TILES = 2, COBBLES = 3, RUG = 4, FLOWERS = 5;

float edge_distance() {
    vec2 q = abs(local) - (v_place.zw - v_shape.y);
    return length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - v_shape.y;
}

float line(float x, float width) { return 1.0 - smoothstep(width * 0.5, width, abs(fract(x - 0.5) - 0.5)); }

vec3 filled(float inside) {
    vec3 base = v_colour.rgb, second = v_accent.rgb;
    int pattern = int(v_accent.a + 0.5);
    if (pattern == PLANKS) {
        float plank = floor(local.x / 0.28);
        float joint = line(local.x / 0.28, 0.10) + line(local.y / 2.1 + hash(vec2(plank, 3.0)), 0.02);
        return mix(base * (0.90 + 0.2 * hash(vec2(plank, 7.0))), second, 0.5 * min(joint, 1.0));
    }
    if (pattern == TILES) {
        vec2 cell = floor(local / 0.6);
        float grout = max(line(local.x / 0.6, 0.06), line(local.y / 0.6, 0.06));
        return mix(base * (0.95 + 0.1 * hash(cell)), second, 0.6 * grout);
    }
    if (pattern == COBBLES) {
        float ring = length(local) / 0.9;
        float around = (atan(local.x, local.y) / (2.0 * PI)) * floor(max(ring, 1.0)) * 7.0;
        float joint = max(line(ring, 0.10), line(around, 0.10) * step(1.0, ring));
        return mix(base * (0.93 + 0.14 * noise(local * 1.3)), second, 0.35 * joint);
    }
    if (pattern == RUG) {
        float band = smoothstep(0.10, 0.13, inside) - smoothstep(0.24, 0.27, inside);
        float middle = smoothstep(0.42, 0.46, inside) * 0.35;
        return mix(base, second, max(band, middle));
    }
    if (pattern == FLOWERS) {
        float bloom = smoothstep(0.62, 0.75, noise(spot * 5.0));
        return mix(base, second, bloom * 0.85);
    }
    return base;
}

void main() {
    float soft = v_shape.z;
    float distance = edge_distance() + v_shape.w * (noise(spot * 0.9) - 0.5) * 2.0;
    if (lighting) {
        // rgb: light that is added; a: factor on what the sky gives. A lamp has colour, a shade has only a.
        float fall = clamp(1.0 - max(distance, 0.0) / soft, 0.0, 1.0);
        float weight = fall * fall * (3.0 - 2.0 * fall);
        pixel = vec4(v_colour.rgb * weight * weight, mix(1.0, v_colour.a, weight));
        return;
    }
    float cover = (1.0 - smoothstep(-soft, soft, distance)) * v_colour.a;
    pixel = vec4(filled(-distance), cover);
}
