using System;
using UnityEngine;

namespace Worldwire
{
    /// <summary>
    /// A texture as the wire wants a seed image: rows of RGB from the top, of the size of the world.
    /// </summary>
    public static class SeedImages
    {
        private const int Channels = 3;

        /// <summary>Any texture, readable or not; it is stretched to the size.</summary>
        public static byte[] Rgb(Texture texture, int width, int height)
        {
            RenderTexture target = RenderTexture.GetTemporary(width, height, 0, RenderTextureFormat.ARGB32);
            RenderTexture before = RenderTexture.active;
            var read = new Texture2D(width, height, TextureFormat.RGB24, false);
            try
            {
                Graphics.Blit(texture, target);
                RenderTexture.active = target;
                read.ReadPixels(new Rect(0, 0, width, height), 0, 0, false);
                return TurnOver(read.GetRawTextureData(), width * Channels, height);
            }
            finally
            {
                RenderTexture.active = before;
                RenderTexture.ReleaseTemporary(target);
                UnityEngine.Object.DestroyImmediate(read);
            }
        }

        /// <summary>The rows in the opposite order.</summary>
        private static byte[] TurnOver(byte[] rows, int rowBytes, int height)
        {
            var turned = new byte[rowBytes * height];
            for (int row = 0; row < height; row++)
            {
                Buffer.BlockCopy(rows, row * rowBytes, turned, (height - 1 - row) * rowBytes, rowBytes);
            }
            return turned;
        }
    }
}
