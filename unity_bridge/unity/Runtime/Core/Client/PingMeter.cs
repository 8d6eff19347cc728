namespace Worldwire
{
    /// <summary>
    /// The last pings: the quickest gives the round trip and how far the server's clock is ahead.
    /// </summary>
    internal sealed class PingMeter
    {
        private const int Kept = 16;

        private readonly long[] _durations = new long[Kept];
        private readonly long[] _offsets = new long[Kept];
        private int _count;

        /// <summary>Nanoseconds; -1 before the first answer.</summary>
        internal long BestNs
        {
            get
            {
                lock (_durations) return _count == 0 ? -1 : _durations[Best()];
            }
        }

        internal void Add(long sentNs, long serverNs, long receivedNs)
        {
            lock (_durations)
            {
                int place = _count++ % Kept;
                _durations[place] = receivedNs - sentNs;
                _offsets[place] = serverNs - (sentNs + (receivedNs - sentNs) / 2);
            }
        }

        /// <summary>
        /// Milliseconds from a time of the server's clock to one of ours; NaN before the first ping.
        /// </summary>
        internal double TransportMs(long serverNs, long receivedNs)
        {
            lock (_durations)
            {
                if (_count == 0) return double.NaN;
                double ms = Clock.Milliseconds(receivedNs - (serverNs - _offsets[Best()]));
                return ms > 0 ? ms : 0;
            }
        }

        private int Best()
        {
            int best = 0;
            for (int i = 1; i < Kept && i < _count; i++)
            {
                if (_durations[i] < _durations[best]) best = i;
            }
            return best;
        }
    }
}
