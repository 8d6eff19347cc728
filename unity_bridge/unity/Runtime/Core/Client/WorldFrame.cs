namespace Worldwire
{
    /// <summary>
    /// One picture with what the server said of it. Buffers are used again: a frame is valid until the next one is
    /// taken from its session.
    /// </summary>
    public sealed class WorldFrame
    {
        /// <summary>Index, pose, receipt, timings.</summary>
        public FrameMessage Info { get; internal set; } = new FrameMessage();

        /// <summary>The payload in its first PixelBytes; rows from the top.</summary>
        public byte[] Pixels { get; internal set; } = new byte[0];

        public int PixelBytes { get; internal set; }

        /// <summary>When all of it was here, on Clock.</summary>
        public long ReceivedNs { get; internal set; }

        /// <summary>From the server's sending to ReceivedNs; NaN until a ping has compared the clocks.</summary>
        public double TransportMs { get; internal set; }

        /// <summary>Whether it costs credit.</summary>
        internal bool IsLive => Info.Request == 0;
    }
}
