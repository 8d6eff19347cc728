using System;
using System.Net;
using System.Net.Sockets;
using System.Threading;

namespace Worldwire
{
    /// <summary>
    /// A DEALER over a plain TCP socket: ZMTP 3.1 with the NULL mechanism. One thread connects and then sends, a
    /// second one receives.
    /// </summary>
    public sealed class ZmtpTransport : ITransport
    {
        private const int MaxCommandBytes = 4096;
        private const int InitialHeaderBytes = 1024;
        private const int SocketBufferBytes = 1 << 20;

        private readonly ServerAddress _address;
        private readonly Outbox _outbox = new Outbox();
        private readonly object _lock = new object();
        private readonly byte[] _command = new byte[MaxCommandBytes];
        private byte[] _header = new byte[InitialHeaderBytes];
        private ITransportSink _sink;
        private Socket _socket;
        private SocketReader _reader;
        private Thread _sender;
        private Thread _receiver;
        private volatile bool _open;
        private volatile bool _closing;
        private bool _disconnected;
        private bool _over;

        public ZmtpTransport(ServerAddress address)
        {
            _address = address;
        }

        public void Start(ITransportSink sink)
        {
            _sink = sink;
            _sender = new Thread(RunSender) { Name = "worldwire-send", IsBackground = true };
            _sender.Start();
        }

        public bool Post(byte[] header, int count, byte[] payload) => _outbox.Post(header, count, payload);

        public void Close(int milliseconds)
        {
            _closing = true;
            _outbox.End();
            if (_open) Join(_sender, milliseconds / 2);
            Disconnect();
            Join(_sender, milliseconds / 4);
            Join(_receiver, milliseconds / 4);
        }

        private static void Join(Thread thread, int milliseconds)
        {
            if (thread != null && thread != Thread.CurrentThread) thread.Join(milliseconds);
        }

        // ------------------------------------------------------------------ the sending thread

        private void RunSender()
        {
            try
            {
                Connect();
                ShakeHands();
                _open = true;
                _sink.Opened();
                _receiver = new Thread(RunReceiver) { Name = "worldwire-receive", IsBackground = true };
                _receiver.Start();
                SendUntilEnd();
            }
            catch (WorldwireException problem)
            {
                End(problem);
            }
            catch (SocketException error)
            {
                bool slow = error.SocketErrorCode == SocketError.TimedOut;
                End(slow
                    ? TransportProblems.TakesNothing(_address)
                    : TransportProblems.Broken(_address, error.SocketErrorCode.ToString()));
            }
            catch (ObjectDisposedException)
            {
                End(TransportProblems.WentAway(_address));
            }
        }

        private void Connect()
        {
            IPAddress[] hosts;
            try
            {
                hosts = Dns.GetHostAddresses(_address.Host);
            }
            catch (SocketException)
            {
                throw TransportProblems.UnknownHost(_address);
            }
            foreach (IPAddress host in hosts)
            {
                if (TryConnect(new IPEndPoint(host, _address.Port))) return;
            }
            throw TransportProblems.NothingListens(_address);
        }

        private bool TryConnect(IPEndPoint endpoint)
        {
            var socket = new Socket(endpoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp)
            {
                NoDelay = true,
                ReceiveBufferSize = SocketBufferBytes,
            };
            lock (_lock)
            {
                if (_closing) throw TransportProblems.WentAway(_address);
                _socket = socket;
            }
            try
            {
                IAsyncResult attempt = socket.BeginConnect(endpoint, null, null);
                bool inTime = attempt.AsyncWaitHandle.WaitOne(TransportTimes.ConnectMilliseconds);
                if (!inTime) throw new SocketException((int)SocketError.TimedOut);
                socket.EndConnect(attempt);
                return true;
            }
            catch (Exception error) when (error is SocketException || error is ObjectDisposedException)
            {
                socket.Close();
                return false;
            }
        }

        private void ShakeHands()
        {
            _socket.SendTimeout = TransportTimes.SendMilliseconds;
            _socket.ReceiveTimeout = TransportTimes.HandshakeMilliseconds;
            _reader = new SocketReader(_socket);
            try
            {
                Greet();
                byte[] ready = ZmtpFrames.Ready();
                Send(ready, 0, ready.Length);
                AwaitReady();
            }
            catch (EndOfConnectionException)
            {
                throw TransportProblems.NotZeroMq(_address);
            }
            catch (SocketException error)
            {
                bool slow = error.SocketErrorCode == SocketError.TimedOut
                    || error.SocketErrorCode == SocketError.WouldBlock;
                throw slow ? TransportProblems.HandshakeTimeout(_address) : TransportProblems.NotZeroMq(_address);
            }
            _socket.ReceiveTimeout = 0;
        }

        /// <summary>
        /// The first half of our greeting goes out before the other's mechanism is known: a server that wants keys
        /// would hang up on the second half before it says so.
        /// </summary>
        private void Greet()
        {
            byte[] ours = ZmtpFrames.Greeting();
            Send(ours, 0, ZmtpFrames.VersionedBytes);
            var theirs = new byte[ZmtpFrames.GreetingBytes];
            _reader.Read(theirs, 0, 1);
            if (theirs[0] != ours[0]) throw TransportProblems.NotZeroMq(_address);
            _reader.Read(theirs, 1, theirs.Length - 1);
            if (!ZmtpFrames.IsZmtp3(theirs)) throw TransportProblems.NotZeroMq(_address);
            if (ZmtpFrames.Mechanism(theirs) != ZmtpFrames.Null) throw TransportProblems.KeyMissing(_address);
            Send(ours, ZmtpFrames.VersionedBytes, ours.Length - ZmtpFrames.VersionedBytes);
        }

        private void AwaitReady()
        {
            byte flags = _reader.ReadByte();
            long length = ReadLength(flags);
            if ((flags & ZmtpFrames.Command) == 0 || length > MaxCommandBytes)
            {
                throw TransportProblems.NotZeroMq(_address);
            }
            _reader.Read(_command, 0, (int)length);
            if (ZmtpFrames.IsReady(_command, (int)length)) return;
            if (!ZmtpFrames.IsError(_command, (int)length)) throw TransportProblems.NotZeroMq(_address);
            string reason = ZmtpFrames.ErrorReason(_command, (int)length);
            throw TransportProblems.Broken(_address, "the refusal \"" + reason + "\"");
        }

        private void SendUntilEnd()
        {
            long lastTick = Clock.NowNs;
            while (true)
            {
                Outbox.Batch batch = _outbox.Take(TransportTimes.TickMilliseconds);
                if (batch == null) return;
                Send(batch);
                long now = Clock.NowNs;
                if (now - lastTick < TransportTimes.TickMilliseconds * Clock.NanosecondsPerMillisecond / 2) continue;
                lastTick = now;
                WorldwireException problem = _sink.Tick(_reader.LastReceivedNs);
                if (problem != null) throw problem;
            }
        }

        private void Send(Outbox.Batch batch)
        {
            int sent = 0;
            for (int i = 0; i < batch.Payloads.Count; i++)
            {
                Send(batch.Data, sent, batch.PayloadPlaces[i] - sent);
                sent = batch.PayloadPlaces[i];
                Send(batch.Payloads[i], 0, batch.Payloads[i].Length);
            }
            Send(batch.Data, sent, batch.Count - sent);
        }

        private void Send(byte[] data, int offset, int count)
        {
            while (count > 0)
            {
                int sent = _socket.Send(data, offset, count, SocketFlags.None);
                offset += sent;
                count -= sent;
            }
        }

        // ------------------------------------------------------------------ the receiving thread

        private void RunReceiver()
        {
            WorldwireException problem;
            try
            {
                while (true) ReceiveMessageOrCommand();
            }
            catch (WorldwireException error)
            {
                problem = error;
            }
            catch (Exception error) when (error is EndOfConnectionException || error is SocketException
                || error is ObjectDisposedException)
            {
                problem = TransportProblems.WentAway(_address);
            }
            _sink.Abandon();
            End(problem);
            _outbox.End();
        }

        private void ReceiveMessageOrCommand()
        {
            byte flags = _reader.ReadByte();
            long length = ReadLength(flags);
            if ((flags & ZmtpFrames.Command) != 0) ReceiveCommand(length);
            else ReceiveMessage(flags, length);
        }

        private void ReceiveCommand(long length)
        {
            if (length > MaxCommandBytes)
            {
                throw TransportProblems.Broken(_address, "a command of " + length + " bytes");
            }
            int count = (int)length;
            _reader.Read(_command, 0, count);
            if (ZmtpFrames.IsPing(_command, count)) _outbox.PostCommand(_command, ZmtpFrames.PongOf(_command, count));
            else if (ZmtpFrames.IsError(_command, count))
            {
                throw TransportProblems.Broken(_address, ZmtpFrames.ErrorReason(_command, count));
            }
        }

        private void ReceiveMessage(byte flags, long length)
        {
            if (length > Protocol.MaxHeaderBytes)
            {
                throw TransportProblems.Broken(_address, "a header of " + length + " bytes");
            }
            if (length > _header.Length) _header = new byte[Protocol.MaxHeaderBytes];
            _reader.Read(_header, 0, (int)length);
            _sink.Header(_header, (int)length);
            if ((flags & ZmtpFrames.More) == 0) _sink.Complete(-1);
            else ReceivePayload();
        }

        private void ReceivePayload()
        {
            byte flags = _reader.ReadByte();
            long length = ReadLength(flags);
            byte[] buffer = _sink.PayloadBuffer(length);
            if (buffer == null) _reader.Drop(length);
            else _reader.Read(buffer, 0, (int)length);
            if ((flags & ZmtpFrames.More) == 0)
            {
                _sink.Complete(length);
                return;
            }
            _sink.Abandon();
            do
            {
                flags = _reader.ReadByte();
                _reader.Drop(ReadLength(flags));
            }
            while ((flags & ZmtpFrames.More) != 0);
        }

        private long ReadLength(byte flags)
        {
            int bytes = (flags & ZmtpFrames.Long) != 0 ? 8 : 1;
            long length = 0;
            for (int i = 0; i < bytes; i++) length = (length << 8) | _reader.ReadByte();
            if (length < 0) throw TransportProblems.Broken(_address, "a frame without a length");
            return length;
        }

        // ------------------------------------------------------------------ the end

        private void End(WorldwireException problem)
        {
            lock (_lock)
            {
                if (_over) return;
                _over = true;
            }
            Disconnect();
            _sink.Closed(problem);
        }

        private void Disconnect()
        {
            lock (_lock)
            {
                if (_socket == null || _disconnected) return;
                _disconnected = true;
            }
            try
            {
                _socket.Shutdown(SocketShutdown.Both);
            }
            catch (Exception error) when (error is SocketException || error is ObjectDisposedException)
            {
                // Never connected, or the other side was faster.
            }
            _socket.Close();
        }
    }
}
