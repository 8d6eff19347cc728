#version 330
// Shared by every program: the light of a scene, the painted sky, and the lamps.
const float PI = 3.14159265;
const float SKY_BELOW = 0.12;   // radians of the sky panorama below the horizon
const int LAMPS = 16;

layout(std140) uniform Light {
    vec4 to_sun;          // world axes (y down), w: 1 / fog distance
    vec4 sun_light;       // linear gain, w: phase of the clouds
    vec4 sky_light;       // w: cloud cover
    vec4 ground_light;
    vec4 zenith;          // display colours from here on
    vec4 horizon;
    vec4 glow;
    vec4 cloud;
    vec4 hills[2];
    vec4 lamps[2 * LAMPS];  // x y z reach, linear rgb 0
};

vec2 sky_uv(vec3 ray) {
    float elevation = asin(clamp(-ray.y, -1.0, 1.0));
    return vec2(atan(ray.x, ray.z) / (2.0 * PI) + 0.5, (elevation + SKY_BELOW) / (0.5 * PI + SKY_BELOW));
}

// Colour of the air near the horizon: warmer towards the sun.
vec3 haze(vec3 ray) {
    vec2 flat_ray = normalize(ray.xz + 1e-6), flat_sun = normalize(to_sun.xz + 1e-6);
    float facing = 0.5 + 0.5 * dot(flat_ray, flat_sun);
    return mix(horizon.rgb, glow.rgb, 0.55 * facing * facing * facing * facing);
}

float hash(vec2 p) {
    p = fract(p * vec2(0.1031, 0.1130));
    p += dot(p, p.yx + 33.33);
    return fract((p.x + p.y) * p.x * 37.0);
}

float noise(vec2 p) {
    vec2 cell = floor(p), f = fract(p);
    f = f * f * (3.0 - 2.0 * f);
    float a = hash(cell), b = hash(cell + vec2(1, 0)), c = hash(cell + vec2(0, 1)), d = hash(cell + vec2(1, 1));
    return mix(mix(a, b, f.x), mix(c, d, f.x), f.y);
}

float cloud_noise(vec2 p) {
    return 0.5 * noise(p) + 0.27 * noise(p * 2.03 + 7.1) + 0.15 * noise(p * 4.1 + 3.7) + 0.08 * noise(p * 8.3);
}
