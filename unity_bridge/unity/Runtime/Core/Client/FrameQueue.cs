using System.Collections.Generic;
using System.Threading;

namespace Worldwire
{
    /// <summary>
    /// The frames of a session that came and were not taken yet: a jitter buffer of a fixed number of places. When
    /// it is full the oldest frame gives way, so it never grows and never blocks the connection. One thread puts
    /// in, another takes out.
    /// </summary>
    public sealed class FrameQueue
    {
        private const int SmallestCompressed = 16384;

        private readonly object _gate;
        private readonly Queue<WorldFrame> _waiting;
        private readonly Queue<WorldFrame> _free; // first in, first out: all buffers are made with the first frames
        private WorldFrame _taken;
        private int _capacity;
        private int _owed;

        /// <param name="gate">Pulsed whenever a frame comes.</param>
        /// <param name="capacity">Frames that may wait.</param>
        internal FrameQueue(object gate, int capacity)
        {
            _gate = gate;
            _waiting = new Queue<WorldFrame>(capacity);
            _free = new Queue<WorldFrame>(capacity + 2);
            Grow(capacity);
        }

        /// <summary>Frames of an older epoch are from before a reset: they are thrown away.</summary>
        public long Epoch { get; private set; }

        /// <summary>How many frames wait.</summary>
        public int Count
        {
            get
            {
                lock (_gate) return _waiting.Count;
            }
        }

        /// <summary>Frames that were thrown away on this side because newer ones came.</summary>
        public long Skipped { get; private set; }

        /// <summary>Frames that the server left out.</summary>
        public long Dropped { get; private set; }

        /// <summary>Frames that came.</summary>
        public long Received { get; private set; }

        /// <summary>
        /// The next frame, or with `skip` the one so many places behind it; null if there is none. What was taken
        /// before is used again.
        /// </summary>
        internal WorldFrame Take(int skip)
        {
            lock (_gate)
            {
                if (_waiting.Count <= skip) return null;
                for (; skip > 0; skip--)
                {
                    Recycle(_waiting.Dequeue());
                    Skipped++;
                }
                if (_taken != null) _free.Enqueue(_taken);
                _taken = _waiting.Dequeue();
                if (_taken.IsLive) _owed++;
                return _taken;
            }
        }

        /// <summary>The credit to give back for frames that left the queue since the last call.</summary>
        internal int TakeCredit()
        {
            lock (_gate)
            {
                int owed = _owed;
                _owed = 0;
                return owed;
            }
        }

        /// <summary>Makes room for at least so many waiting frames.</summary>
        internal void Grow(int capacity)
        {
            lock (_gate)
            {
                int places = capacity - _capacity + (_capacity == 0 ? 2 : 0);
                for (; places > 0; places--) _free.Enqueue(new WorldFrame());
                if (capacity > _capacity) _capacity = capacity;
            }
        }

        /// <summary>A new epoch: what waits is of the past, and the server's credit is whole again.</summary>
        internal void Advance(long epoch)
        {
            lock (_gate)
            {
                if (epoch <= Epoch) return;
                Epoch = epoch;
                Clear();
            }
        }

        /// <summary>Forgets what waits, and the credit for it.</summary>
        internal void Clear()
        {
            lock (_gate)
            {
                while (_waiting.Count > 0) _free.Enqueue(_waiting.Dequeue());
                _owed = 0;
            }
        }

        /// <summary>A frame to fill for a payload of this length; null if it is of an older epoch.</summary>
        internal WorldFrame Acquire(FrameMessage info, long length)
        {
            lock (_gate)
            {
                Advance(info.Epoch);
                if (info.Epoch < Epoch) return null;
                if (_free.Count == 0)
                {
                    Recycle(_waiting.Dequeue());
                    Skipped++;
                }
                WorldFrame frame = _free.Dequeue();
                Fit(frame, info, length);
                return frame;
            }
        }

        internal void Publish(WorldFrame frame)
        {
            lock (_gate)
            {
                if (frame.Info.Epoch < Epoch)
                {
                    _free.Enqueue(frame);
                    return;
                }
                Received++;
                Dropped += frame.Info.Dropped;
                _waiting.Enqueue(frame);
                Monitor.PulseAll(_gate);
            }
        }

        /// <summary>Gives back what Acquire gave, unused.</summary>
        internal void Release(WorldFrame frame)
        {
            lock (_gate) _free.Enqueue(frame);
        }

        private void Recycle(WorldFrame frame)
        {
            if (frame.IsLive) _owed++;
            _free.Enqueue(frame);
        }

        /// <summary>
        /// A buffer of exactly this length for raw pixels; for compressed ones, which differ in length, one with
        /// room to spare.
        /// </summary>
        private static void Fit(WorldFrame frame, FrameMessage info, long length)
        {
            if (FrameFormat.BytesPerPixel(info.Format) > 0)
            {
                if (frame.Pixels.Length != length) frame.Pixels = new byte[length];
                return;
            }
            if (frame.Pixels.Length >= length) return;
            long room = SmallestCompressed;
            while (room < length) room *= 2;
            frame.Pixels = new byte[room];
        }
    }
}
