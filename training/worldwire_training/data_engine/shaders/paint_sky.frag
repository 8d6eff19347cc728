// Paints the sky panorama of a scene: gradient, sun, clouds, far hills.
in vec2 screen;
out vec4 pixel;

float ridge(float azimuth, float seed) {
    float p = seed + sun_light.w;
    return 0.5 + 0.22 * sin(2.0 * azimuth + p) + 0.16 * sin(3.0 * azimuth + 1.7 * p) + 0.09 * sin(7.0 * azimuth + 2.3 * p)
         + 0.05 * sin(13.0 * azimuth + 3.1 * p);
}

void main() {
    float azimuth = (screen.x - 0.5) * 2.0 * PI;
    float elevation = screen.y * (0.5 * PI + SKY_BELOW) - SKY_BELOW;
    vec3 ray = vec3(sin(azimuth) * cos(elevation), -sin(elevation), cos(azimuth) * cos(elevation));
    float high = max(elevation, 0.0) / (0.5 * PI);
    vec3 colour = mix(haze(ray), zenith.rgb, 1.0 - pow(1.0 - high, 3.2));
    float to = max(dot(ray, to_sun.xyz), 0.0);
    colour = mix(colour, glow.rgb, 0.5 * pow(to, 10.0));

    float lift = max(elevation, 0.02) + 0.16;
    vec2 on_clouds = vec2(sin(azimuth), cos(azimuth)) * (0.62 / lift) + sun_light.w;
    float density = cloud_noise(on_clouds * 1.5);
    float cover = smoothstep(0.74 - 0.36 * sky_light.w, 0.92 - 0.30 * sky_light.w, density) * smoothstep(0.0, 0.16, elevation);
    vec3 shade = mix(cloud.rgb, mix(cloud.rgb * 0.86, haze(ray), 0.5), smoothstep(0.55, 0.9, density));
    colour = mix(colour, mix(shade, glow.rgb, 0.35 * to * to), cover * 0.85);

    colour += glow.rgb * (smoothstep(0.9988, 0.9995, to) * 0.8 + 0.25 * pow(to, 60.0)) * (1.0 - 0.6 * cover);
    float soft = 0.006;
    float far_ridge = 0.02 + 0.13 * ridge(azimuth, 2.0), near_ridge = 0.005 + 0.085 * ridge(azimuth, 9.0);
    colour = mix(colour, hills[1].rgb, 1.0 - smoothstep(far_ridge - soft, far_ridge + soft, elevation));
    colour = mix(colour, hills[0].rgb, 1.0 - smoothstep(near_ridge - soft, near_ridge + soft, elevation));
    colour = mix(colour, haze(ray), 0.8 * (1.0 - smoothstep(-0.03, 0.05, elevation)));
    pixel = vec4(clamp(colour, 0.0, 1.0), 1.0);
}
