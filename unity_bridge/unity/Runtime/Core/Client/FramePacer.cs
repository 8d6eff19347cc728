namespace Worldwire
{
    /// <summary>
    /// When to show the next frame, so that frames that come in bursts are seen at the world's own rate. What a
    /// hiccup left waiting is played a little faster until it is gone.
    /// </summary>
    public sealed class FramePacer
    {
        /// <summary>Frames a second beyond which pacing makes no difference.</summary>
        public const double MaxRate = 1000;

        private const double CatchUpSpeed = 1.05;
        private const double WatchSeconds = 1;

        private long _nextNs;
        private bool _running;
        private int _fewest = int.MaxValue;
        private long _watchEndNs;
        private bool _hurrying;

        /// <summary>Frames a second.</summary>
        public double Rate { get; set; } = 16;

        public void Restart() => _running = false;

        /// <summary>How many of the waiting frames are due; the last of them is the one to show.</summary>
        /// <param name="lead">Frames that may wait all the time: more means that we lag behind.</param>
        public int Due(long now, int waiting, int lead)
        {
            Watch(now, waiting, lead);
            long period = Clock.FromSeconds(1 / (Rate * (_hurrying ? CatchUpSpeed : 1)));
            if (waiting == 0)
            {
                if (now > _nextNs + period) _running = false;
                return 0;
            }
            if (!_running)
            {
                _running = true;
                _nextNs = now + period;
                return 1;
            }
            if (now < _nextNs) return 0;
            long due = 1 + (now - _nextNs) / period;
            if (due > waiting) due = waiting;
            _nextNs += due * period;
            if (_nextNs < now) _nextNs = now;
            return (int)due;
        }

        private void Watch(long now, int waiting, int lead)
        {
            if (waiting < _fewest) _fewest = waiting;
            if (now < _watchEndNs) return;
            _hurrying = _fewest > lead && _fewest != int.MaxValue;
            _fewest = int.MaxValue;
            _watchEndNs = now + Clock.FromSeconds(WatchSeconds);
        }
    }
}
