using UnityEngine;

namespace Worldwire
{
    /// <summary>The texture that frames are uploaded to: one for all of them, made once.</summary>
    public sealed class FrameTexture
    {
        /// <summary>Null before the first frame.</summary>
        public Texture2D Texture { get; private set; }

        /// <summary>Whether row 0 of the texture is the top of the picture, as on the wire.</summary>
        public bool IsTopDown { get; private set; }

        /// <summary>What maps 0 … 1 on the screen to the texture, the right way up.</summary>
        public Vector2 Scale => new Vector2(1, IsTopDown ? -1 : 1);

        public Vector2 Offset => new Vector2(0, IsTopDown ? 1 : 0);

        /// <summary>Shows a frame; one upload, no copy on this side.</summary>
        public void Upload(WorldFrame frame)
        {
            FrameMessage info = frame.Info;
            if (info.Format == FrameFormat.Jpeg)
            {
                Prepare(info.Width, info.Height, TextureFormat.RGB24);
                ImageConversion.LoadImage(Texture, frame.Pixels, false);
                IsTopDown = false;
                return;
            }
            Prepare(info.Width, info.Height, FormatOf(info.Format));
            Texture.LoadRawTextureData(frame.Pixels);
            Texture.Apply(false, false);
            IsTopDown = true;
        }

        public void Destroy()
        {
            if (Texture != null) Object.Destroy(Texture);
            Texture = null;
        }

        private void Prepare(int width, int height, TextureFormat format)
        {
            if (Texture == null)
            {
                Texture = new Texture2D(width, height, format, false)
                {
                    name = "Worldwire frame",
                    wrapMode = TextureWrapMode.Clamp,
                    hideFlags = HideFlags.HideAndDontSave,
                };
            }
            else if (Texture.width != width || Texture.height != height || Texture.format != format)
            {
                Texture.Reinitialize(width, height, format, false);
            }
        }

        private static TextureFormat FormatOf(string format)
        {
            if (format == FrameFormat.Rgb) return TextureFormat.RGB24;
            return format == FrameFormat.Bgra ? TextureFormat.BGRA32 : TextureFormat.RGBA32;
        }
    }
}
