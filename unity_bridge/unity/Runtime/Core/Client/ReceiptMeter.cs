namespace Worldwire
{
    /// <summary>How long inputs take until a frame that shows them is taken.</summary>
    internal sealed class ReceiptMeter
    {
        private const int Kept = 256;

        private readonly long[] _seqs = new long[Kept];
        private readonly long[] _times = new long[Kept];
        private long _newestAck;

        /// <summary>
        /// From sending the newest input that a frame shows to taking that frame; NaN before the first.
        /// </summary>
        internal double InputMs { get; private set; } = double.NaN;

        internal void Sent(long seq, long now)
        {
            _seqs[seq % Kept] = seq;
            _times[seq % Kept] = now;
        }

        internal void Shown(long ack, long now)
        {
            if (ack <= _newestAck) return;
            _newestAck = ack;
            if (_seqs[ack % Kept] == ack) InputMs = Clock.Milliseconds(now - _times[ack % Kept]);
        }
    }
}
