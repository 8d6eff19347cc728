using NUnit.Framework;
using UnityEngine;

namespace Worldwire.Tests
{
    public sealed class CameraTests
    {
        private readonly FrameTexture _texture = new FrameTexture();

        [TearDown]
        public void Destroy() => _texture.Destroy();

        private static WorldFrame Frame(string format, int width, int height)
        {
            var queue = new FrameQueue(new object(), 1);
            var info = new FrameMessage { Format = format, Width = width, Height = height, Request = 1 };
            int bytes = width * height * FrameFormat.BytesPerPixel(format);
            WorldFrame frame = queue.Acquire(info, bytes);
            frame.Info = info;
            frame.PixelBytes = bytes;
            return frame;
        }

        [Test]
        public void FramesOfOneSizeShareOneTexture()
        {
            _texture.Upload(Frame(FrameFormat.Rgba, 8, 4));
            Texture2D first = _texture.Texture;
            _texture.Upload(Frame(FrameFormat.Rgba, 8, 4));
            Assert.AreEqual(first, _texture.Texture);
            Assert.IsTrue(_texture.IsTopDown);
        }

        [Test]
        public void AnotherSizeReshapesTheSameTexture()
        {
            _texture.Upload(Frame(FrameFormat.Rgba, 8, 4));
            Texture2D first = _texture.Texture;
            _texture.Upload(Frame(FrameFormat.Rgb, 4, 4));
            Assert.AreEqual(first, _texture.Texture);
            Assert.AreEqual(4, _texture.Texture.width);
        }
    }
}
