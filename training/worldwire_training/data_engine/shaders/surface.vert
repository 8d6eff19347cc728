// One vertex of a scene (or, with AVATAR, of the walker): light that does not need a fragment is done here.
in vec3 position;
in vec4 normal_ao;
in vec4 colour_glow;
in uvec4 kind;
uniform mat4 view_proj;
#ifdef AVATAR
uniform vec4 stand;       // x, z, yaw (radians), swing angle of the limbs (radians)
const float HIP = 0.86, SHOULDER = 1.32;
#endif

out vec3 world;
out vec3 ambient;         // linear light that always reaches the surface, times its colour
out vec3 sunlit;          // what the sun adds where no shadow falls
out vec3 albedo;
flat out vec3 normal;
flat out vec4 lamp_place; // x, y, z, reach
flat out vec3 lamp_gain;
out float glow_share;

void main() {
    vec3 p = position, n = (normal_ao.xyz * 255.0 - 128.0) / 127.0;
#ifdef AVATAR
    int limb = int(kind.z);   // 1 left leg, 2 right leg, 3 left arm, 4 right arm
    if (limb > 0) {
        float pivot = -(limb < 3 ? HIP : SHOULDER);
        float angle = stand.w * ((limb == 1 || limb == 4) ? 1.0 : -1.0) * (limb < 3 ? 1.0 : 0.8);
        float c = cos(angle), s = sin(angle);
        p.yz = vec2(pivot, 0.0) + mat2(c, s, -s, c) * (p.yz - vec2(pivot, 0.0));
        n.yz = mat2(c, s, -s, c) * n.yz;
    }
    p.y -= 0.03 * abs(sin(stand.w * 1.6));
    float cy = cos(stand.z), sy = sin(stand.z);
    p = vec3(p.x * cy + p.z * sy + stand.x, p.y, p.z * cy - p.x * sy + stand.y);
    n = vec3(n.x * cy + n.z * sy, n.y, n.z * cy - n.x * sy);
#endif
    n = normalize(n);
    albedo = colour_glow.rgb * colour_glow.rgb;
    float up = 0.5 - 0.5 * n.y;
    vec3 from_sky = mix(ground_light.rgb, sky_light.rgb, up) * (0.86 + 0.14 * abs(n.z));
    ambient = albedo * from_sky * max(normal_ao.w, 0.0);
    sunlit = albedo * sun_light.rgb * max(dot(n, to_sun.xyz), 0.0);
    normal = n;
    world = p;
    glow_share = colour_glow.a;
    lamp_place = lamps[2u * kind.y];
    lamp_gain = lamps[2u * kind.y + 1u].rgb;
    gl_Position = view_proj * vec4(p, 1.0);
}
