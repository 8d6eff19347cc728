using System;
using System.Collections.Generic;
using System.Threading;

namespace Worldwire
{
    /// <summary>
    /// Messages that wait to be sent, already as ZMTP frames. Two buffers change places, so that in steady state
    /// nothing is allocated; large payloads are not copied.
    /// </summary>
    internal sealed class Outbox
    {
        private const int InitialBytes = 4096;
        private const int MaxFrameHead = 9;

        /// <summary>Frames, with payloads to be sent at certain places between them.</summary>
        internal sealed class Batch
        {
            internal byte[] Data = new byte[InitialBytes];
            internal int Count;
            internal readonly List<int> PayloadPlaces = new List<int>();
            internal readonly List<byte[]> Payloads = new List<byte[]>();

            internal bool IsEmpty => Count == 0;

            internal void Clear()
            {
                Count = 0;
                PayloadPlaces.Clear();
                Payloads.Clear();
            }

            internal void Append(byte flags, byte[] body, int count)
            {
                Reserve(count + MaxFrameHead);
                Count += ZmtpFrames.WriteHead(Data, Count, flags, count);
                Buffer.BlockCopy(body, 0, Data, Count, count);
                Count += count;
            }

            internal void AppendPayload(byte[] payload)
            {
                Reserve(MaxFrameHead);
                Count += ZmtpFrames.WriteHead(Data, Count, 0, payload.Length);
                PayloadPlaces.Add(Count);
                Payloads.Add(payload);
            }

            private void Reserve(int bytes)
            {
                if (Count + bytes > Data.Length) Array.Resize(ref Data, Math.Max(2 * Data.Length, Count + bytes));
            }
        }

        private readonly object _lock = new object();
        private Batch _filling = new Batch();
        private Batch _sending = new Batch();
        private bool _ended;

        /// <summary>Any thread. False if too much waits, or after End.</summary>
        internal bool Post(byte[] header, int count, byte[] payload)
        {
            lock (_lock)
            {
                if (_ended || _filling.Count + count > TransportTimes.MaxWaitingBytes) return false;
                _filling.Append(payload == null ? (byte)0 : ZmtpFrames.More, header, count);
                if (payload != null) _filling.AppendPayload(payload);
                Monitor.Pulse(_lock);
                return true;
            }
        }

        /// <summary>A ZMTP command, from the receiving thread.</summary>
        internal void PostCommand(byte[] body, int count)
        {
            lock (_lock)
            {
                if (_ended || _filling.Count > TransportTimes.MaxWaitingBytes) return;
                _filling.Append(ZmtpFrames.Command, body, count);
                Monitor.Pulse(_lock);
            }
        }

        /// <summary>
        /// What waits, after at most this time; valid until the next call. Null: ended and empty.
        /// </summary>
        internal Batch Take(int milliseconds)
        {
            lock (_lock)
            {
                if (_filling.IsEmpty && !_ended) Monitor.Wait(_lock, milliseconds);
                if (_filling.IsEmpty && _ended) return null;
                Batch taken = _filling;
                _filling = _sending;
                _filling.Clear();
                _sending = taken;
                return taken;
            }
        }

        /// <summary>Nothing more is taken; what waits is still given out.</summary>
        internal void End()
        {
            lock (_lock)
            {
                _ended = true;
                Monitor.PulseAll(_lock);
            }
        }
    }
}
