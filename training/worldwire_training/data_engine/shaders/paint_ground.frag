// Puts the ground together: painted colours under sky light, shade, lamps and a softly shadowed sun.
in vec2 screen;
uniform float half_extent;
uniform sampler2D paint;
uniform sampler2D lights;
uniform sampler2DShadow shadow;
uniform mat4 shadow_matrix;
uniform float sun_softness;
out vec4 pixel;

float soft_sun(vec3 at) {
    float sum = 0.0;
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
            vec3 p = at + vec3(float(i) - 1.5, 0.0, float(j) - 1.5) * sun_softness;
            vec4 q = shadow_matrix * vec4(p, 1.0);
            sum += texture(shadow, vec3(q.xy, min(q.z, 1.0) - 0.0015));
        }
    return sum / 16.0;
}

void main() {
    vec2 spot = (screen * 2.0 - 1.0) * half_extent;
    vec3 colour = texture(paint, screen).rgb;
    vec4 extra = texture(lights, screen);
    float sun = soft_sun(vec3(spot.x, -0.03, spot.y)) * max(-to_sun.y, 0.0);
    vec3 light = sky_light.rgb * extra.a + sun_light.rgb * sun * (0.6 + 0.4 * extra.a) + extra.rgb;
    pixel = vec4(sqrt(clamp(colour * colour * light, 0.0, 1.0)), 1.0);
}
