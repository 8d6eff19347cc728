using System;
using System.Collections.Generic;
using System.Threading;

namespace Worldwire
{
    /// <summary>A message that the owner of a link is to look at, and its payload if it had one.</summary>
    internal struct Arrival
    {
        internal Message Message;
        internal byte[] Payload;
    }

    /// <summary>
    /// One connection above its transport. Frames go to the queues of their sessions and pings are kept up on the
    /// transport's threads, whatever the owner's thread is doing; all else waits for TryReceive.
    /// </summary>
    internal sealed class Link : ITransportSink
    {
        private const int MaxArrivals = 1024;

        private readonly ITransport _transport;
        private readonly object _gate;
        private readonly MessageCodec _codec = new MessageCodec();
        private readonly MsgPackWriter _writer = new MsgPackWriter();
        private readonly Queue<Arrival> _arrivals = new Queue<Arrival>();
        private readonly Dictionary<long, FrameQueue> _queues = new Dictionary<long, FrameQueue>();
        private readonly PingMessage _ping = new PingMessage();
        private readonly PingMeter _pings;
        private FrameMessage _frame = new FrameMessage();
        private Message _message;
        private byte[] _payload;
        private FrameQueue _queue;
        private WorldFrame _slot;
        private long _lastPingNs;
        private volatile bool _closing;

        /// <param name="gate">Pulsed whenever something comes.</param>
        internal Link(ITransport transport, object gate, PingMeter pings)
        {
            _transport = transport;
            _gate = gate;
            _pings = pings;
        }

        /// <summary>Whether both sides have shaken hands.</summary>
        internal bool IsOpen { get; private set; }

        /// <summary>Why the connection is over; null while it is not.</summary>
        internal WorldwireException Problem { get; private set; }

        /// <summary>Whether it is over because nothing came any more.</summary>
        internal bool WentSilent { get; private set; }

        /// <summary>Messages that were none and were dropped.</summary>
        internal long Unreadable { get; private set; }

        internal double HeartbeatSeconds { get; set; } = Protocol.HeartbeatSeconds;

        internal double LivenessSeconds { get; set; } = Protocol.LivenessSeconds;

        internal void Start() => _transport.Start(this);

        internal void Attach(long session, FrameQueue queue)
        {
            lock (_gate) _queues[session] = queue;
        }

        internal void Detach(long session)
        {
            lock (_gate) _queues.Remove(session);
        }

        /// <summary>Queues a message. False: the connection is over, or takes nothing.</summary>
        internal bool Send(Message message, byte[] payload = null)
        {
            lock (_writer)
            {
                message.Encode(_writer);
                return _transport.Post(_writer.Data, _writer.Count, payload);
            }
        }

        internal bool HasArrivals
        {
            get
            {
                lock (_gate) return _arrivals.Count > 0 || Problem != null;
            }
        }

        internal bool TryReceive(out Arrival arrival)
        {
            lock (_gate)
            {
                bool any = _arrivals.Count > 0;
                arrival = any ? _arrivals.Dequeue() : new Arrival();
                return any;
            }
        }

        /// <summary>Says goodbye, which ends the sessions, and closes.</summary>
        internal void CloseForGood(int milliseconds)
        {
            if (IsOpen && Problem == null) Send(new ByeMessage { Reason = "closed" });
            Drop(milliseconds);
        }

        /// <summary>Ends the connection without a word, so that its sessions wait.</summary>
        internal void Drop(int milliseconds)
        {
            _closing = true;
            _transport.Close(milliseconds);
        }

        // ------------------------------------------------------------------ the transport's threads

        void ITransportSink.Opened()
        {
            lock (_gate)
            {
                IsOpen = true;
                Monitor.PulseAll(_gate);
            }
            Ping(Clock.NowNs);
        }

        WorldwireException ITransportSink.Tick(long lastReceivedNs)
        {
            long now = Clock.NowNs;
            if (now - _lastPingNs >= Clock.FromSeconds(HeartbeatSeconds)) Ping(now);
            double silence = Clock.Seconds(now - lastReceivedNs);
            if (silence < LivenessSeconds) return null;
            WentSilent = true;
            return new WorldwireException(
                ErrorCode.ConnectionLost, "The server was silent for " + (int)silence + " s",
                "an answer to the ping of every " + HeartbeatSeconds + " s", remedy: "Look at the server's log.");
        }

        void ITransportSink.Closed(WorldwireException problem)
        {
            lock (_gate)
            {
                if (!_closing) Problem = problem;
                Monitor.PulseAll(_gate);
            }
        }

        void ITransportSink.Header(byte[] data, int count)
        {
            _payload = null;
            _slot = null;
            try
            {
                _message = _codec.Decode(data, 0, count, _frame);
            }
            catch (WorldwireException)
            {
                _message = null;
                Unreadable++;
            }
        }

        byte[] ITransportSink.PayloadBuffer(long length)
        {
            if (_message is FrameMessage) return FrameBuffer(length);
            var saved = _message as SavedMessage;
            if (saved == null || saved.Size != length || length > int.MaxValue) return null;
            return _payload = new byte[length];
        }

        void ITransportSink.Complete(long payloadLength)
        {
            if (_message is FrameMessage) CompleteFrame(payloadLength);
            else if (_message is PongMessage) NotePong((PongMessage)_message);
            else if (_message != null) Arrive(_message);
            _message = null;
        }

        void ITransportSink.Abandon()
        {
            if (_message != null) Unreadable++;
            _message = null;
            if (_slot != null) _queue.Release(_slot);
            _slot = null;
        }

        private byte[] FrameBuffer(long length)
        {
            int bytesPerPixel = FrameFormat.BytesPerPixel(_frame.Format);
            bool fits = bytesPerPixel == 0
                ? length <= 4L * _frame.Height * _frame.Width + Protocol.MaxHeaderBytes
                : length == (long)bytesPerPixel * _frame.Height * _frame.Width;
            lock (_gate)
            {
                if (!fits || !_queues.TryGetValue(_frame.Session, out _queue)) return null;
            }
            _slot = _queue.Acquire(_frame, length);
            return _slot?.Pixels;
        }

        private void CompleteFrame(long payloadLength)
        {
            if (_slot == null) return;
            if (_closing)
            {
                _queue.Release(_slot);
                _slot = null;
                return;
            }
            FrameMessage recycled = _slot.Info;
            _slot.Info = _frame;
            _frame = recycled;
            _slot.PixelBytes = (int)payloadLength;
            _slot.ReceivedNs = Clock.NowNs;
            _slot.TransportMs = _pings.TransportMs(_slot.Info.TimeNs, _slot.ReceivedNs);
            _queue.Publish(_slot);
            _slot = null;
        }

        private void NotePong(PongMessage pong) => _pings.Add(pong.TimeNs, pong.ServerTimeNs, Clock.NowNs);

        private void Arrive(Message message)
        {
            var done = message as DoneMessage;
            lock (_gate)
            {
                FrameQueue queue;
                if (done != null && _queues.TryGetValue(done.Session, out queue)) queue.Advance(done.Epoch);
                var arrival = new Arrival { Message = message, Payload = _payload };
                if (_arrivals.Count < MaxArrivals) _arrivals.Enqueue(arrival);
                Monitor.PulseAll(_gate);
            }
        }

        private void Ping(long now)
        {
            _lastPingNs = now;
            _ping.TimeNs = now;
            Send(_ping);
        }
    }
}
