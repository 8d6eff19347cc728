// One fragment of a scene: shadow, lamp, a soft pattern, fog. Compiled once per material: PLAIN, ROWS, LEAVES, GROUND,
// WATER or GLASS is defined (llvmpipe runs both sides of every branch, so branches cost more than draw calls).
in vec3 world;
in vec3 ambient;
in vec3 sunlit;
in vec3 albedo;
flat in vec3 normal;
flat in vec4 lamp_place;
flat in vec3 lamp_gain;
in float glow_share;

uniform vec3 eye;
uniform mat4 shadow_matrix;
uniform float ground_scale;
uniform sampler2D ground;
uniform sampler2D sky;
uniform sampler2DShadow shadow;
out vec4 pixel;

const float ROW_M = 0.34;
const float GRAZING = 0.35;   // share of the long axis that counts

// Mip level between the two axes of a pixel's footprint: grazing ground stays readable, and every driver agrees
// (anisotropic filtering differs between drivers, and takes seconds a frame on llvmpipe).
float level_of(vec2 uv) {
    vec2 size = vec2(textureSize(ground, 0));
    float a = length(dFdx(uv) * size), b = length(dFdy(uv) * size);
    return log2(max(max(min(a, b), GRAZING * max(a, b)), 1e-4));
}

float sun_share() {
    vec4 p = shadow_matrix * vec4(world + normal * 0.06, 1.0);
    return texture(shadow, vec3(p.xy, min(p.z, 1.0) - 0.0012));
}

vec3 lamp_light() {
    vec3 towards = lamp_place.xyz - world;
    float d2 = dot(towards, towards);
    float facing = 0.35 + 0.65 * max(dot(normal, towards * inversesqrt(d2 + 1e-4)), 0.0);
    float fade = max(1.0 - d2 / (lamp_place.w * lamp_place.w + 1e-4), 0.0);
    return albedo * lamp_gain * (facing * fade * fade);
}

vec3 mirrored_sky(vec3 ray, vec3 up) {
    vec3 mirrored = reflect(ray, up);
    return vec3(mirrored.x, -abs(mirrored.y), mirrored.z);
}

vec3 water(vec3 ray, float away) {
    float calm = 1.0 / (1.0 + 0.06 * away);
    vec2 wave = vec2(sin(world.x * 2.3 + world.z * 1.1), sin(world.z * 2.7 - world.x * 1.3)) * 0.035 * calm;
    vec3 up = normalize(vec3(wave.x, -1.0, wave.y));
    vec3 mirrored = mirrored_sky(ray, up);
    float fresnel = 0.25 + 0.75 * pow(1.0 - abs(dot(ray, up)), 3.0);
    vec3 deep = sqrt(albedo) * (0.55 + 0.45 * horizon.rgb);
    float glitter = pow(max(dot(mirrored, to_sun.xyz), 0.0), 90.0);
    return mix(deep, texture(sky, sky_uv(mirrored)).rgb, fresnel * 0.85) + glow.rgb * glitter * 0.7;
}

// How much a material's pattern brightens a place; fades out before it could shimmer.
float pattern(float away) {
#if defined(ROWS)
    float row = world.y / ROW_M, width = fwidth(row);
    return 1.0 + 0.22 * (fract(row) - 0.5) * clamp(1.6 - 3.0 * width, 0.0, 1.0);
#elif defined(LEAVES)
    float dapple = sin(world.x * 5.1 + world.y * 3.0) * sin(world.y * 6.3 + world.z * 1.7) * sin(world.z * 5.7);
    return 1.0 + 0.16 * dapple * clamp(1.4 - 0.06 * away, 0.0, 1.0);
#else
    return 1.0;
#endif
}

void main() {
    vec3 along = world - eye;
    float away = length(along);
    vec3 ray = along / away;
#if defined(GROUND)
    vec2 uv = world.xz * ground_scale + 0.5;
    vec3 colour = textureLod(ground, uv, level_of(uv)).rgb;
#elif defined(WATER)
    vec3 colour = water(ray, away);
#else
    vec3 light = ambient + sunlit * sun_share() + lamp_light();
    vec3 colour = sqrt(clamp(mix(light, albedo, glow_share) * pattern(away), 0.0, 1.0));
#endif
#if defined(GLASS)
    colour = mix(colour, texture(sky, sky_uv(mirrored_sky(ray, normal))).rgb, 0.45);
#endif
    float thick = away * to_sun.w;
    float fog = 1.0 - exp(-thick * sqrt(thick));
    pixel = vec4(mix(colour, haze(ray), fog * (1.0 - 0.6 * glow_share)), 1.0);
}
