namespace Worldwire
{
    /// <summary>The numbers of the specification (sdk/PROTOCOL.md) that both sides know.</summary>
    public static class Protocol
    {
        public const int Major = 1;
        public const int Minor = 0;
        public const string DefaultAddress = "tcp://127.0.0.1:5555";

        public const long MaxId = 1L << 53;
        public const int MaxHeaderBytes = 262144;
        public const int MaxNameCharacters = 256;
        public const int MaxPromptCharacters = 2000;
        public const int MaxStepFrames = 4096;
        public const int MaxWindowFrames = 4096;
        public const int MaxKeys = 32;
        public const int MaxFormats = 16;
        public const int MaxSidePixels = 8192;
        public const int DefaultJpegQuality = 90;

        public const double HeartbeatSeconds = 2;
        public const double LivenessSeconds = 10;
        public const double ResumeSeconds = 30;
        public const double MaxSeconds = 1e9;

        public const string StateLoading = "loading";
        public const string StateReady = "ready";
        public const string StateBusy = "busy";

        /// <summary>Sides of equal majors can talk; a minor only adds.</summary>
        public static bool CanTalkTo(long major) => major == Major;
    }

    /// <summary>What a payload of pixels can be (specification, section 8).</summary>
    public static class FrameFormat
    {
        public const string Rgb = "rgb";
        public const string Rgba = "rgba";
        public const string Bgra = "bgra";
        public const string Jpeg = "jpeg";

        /// <summary>Bytes a pixel, 0 for formats whose payload has no fixed length.</summary>
        public static int BytesPerPixel(string format)
        {
            if (format == Rgb) return 3;
            if (format == Rgba || format == Bgra) return 4;
            return 0;
        }
    }
}
