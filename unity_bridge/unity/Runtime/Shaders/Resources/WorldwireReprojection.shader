// The newest frame as the newest head pose sees it: rotation only, the homography K_frame R K_view^-1 of
// Worldwire.Reprojection. What the frame does not show is black.
Shader "Worldwire/Reprojection"
{
    Properties
    {
        _MainTex ("Frame", 2D) = "black" {}
    }
    SubShader
    {
        Tags { "RenderType" = "Opaque" "Queue" = "Background" }
        Cull Off
        ZWrite Off
        ZTest Always

        Pass
        {
            CGPROGRAM
            #pragma vertex vert
            #pragma fragment frag
            #include "UnityCG.cginc"

            sampler2D _MainTex;
            float4x4 _WorldwireWarp;    // screen place (u right, v down) to frame place, in the upper left 3 x 3
            float _WorldwireTopDown;    // 1: row 0 of the texture is the top of the picture

            struct Fragment
            {
                float4 position : SV_POSITION;
                float2 uv : TEXCOORD0;
            };

            Fragment vert(appdata_img vertex)
            {
                Fragment fragment;
                fragment.position = UnityObjectToClipPos(vertex.vertex);
                fragment.uv = vertex.texcoord;
                return fragment;
            }

            fixed4 frag(Fragment fragment) : SV_Target
            {
                float3 place = mul((float3x3)_WorldwireWarp, float3(fragment.uv.x, 1.0 - fragment.uv.y, 1.0));
                float2 uv = place.xy / max(place.z, 1e-6);
                bool seen = place.z > 0.0 && all(uv >= 0.0) && all(uv <= 1.0);
                float v = lerp(1.0 - uv.y, uv.y, _WorldwireTopDown);
                // The level is given: derivatives would be wrong at the edge of what is seen.
                fixed4 colour = tex2Dlod(_MainTex, float4(uv.x, v, 0.0, 0.0));
                return seen ? colour : fixed4(0.0, 0.0, 0.0, 1.0);
            }
            ENDCG
        }
    }
}
