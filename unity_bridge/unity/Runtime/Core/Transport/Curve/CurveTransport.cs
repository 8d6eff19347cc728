#if WORLDWIRE_CURVE
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;

namespace Worldwire
{
    /// <summary>
    /// A DEALER of libzmq with CURVE encryption. One thread owns the socket; a pair of sockets wakes it up when
    /// something is to be sent. The socket's monitor tells what became of the handshake.
    /// </summary>
    internal sealed class CurveTransport : ITransport
    {
        private const string WakeAddress = "inproc://wake";
        private const string MonitorAddress = "inproc://monitor";
        private const int LingerMilliseconds = 300;
        private const int NoReconnect = -1;
        private const int DealerItem = 0, MonitorItem = 1, WakeItem = 2;

        private struct Waiting
        {
            internal byte[] Header;
            internal byte[] Payload;
        }

        private readonly ServerAddress _address;
        private readonly string _serverKey;
        private readonly string _publicKey;
        private readonly string _secretKey;
        private readonly object _lock = new object();
        private readonly Queue<Waiting> _waiting = new Queue<Waiting>();
        private readonly byte[] _wakeByte = new byte[1];
        private byte[] _header = new byte[1024];
        private ITransportSink _sink;
        private Thread _thread;
        private IntPtr _context, _dealer, _monitor, _wakeIn, _wakeOut, _message;
        private long _waitingBytes;
        private long _lastReceivedNs;
        private bool _connected;
        private bool _open;
        private volatile bool _closing;

        internal CurveTransport(ServerAddress address, string serverKey, string publicKey, string secretKey)
        {
            _address = address;
            _serverKey = CurveKeys.Public(serverKey);
            _publicKey = CurveKeys.Public(publicKey);
            _secretKey = CurveKeys.Secret(secretKey);
        }

        public void Start(ITransportSink sink)
        {
            _sink = sink;
            _thread = new Thread(Run) { Name = "worldwire-curve", IsBackground = true };
            _thread.Start();
        }

        public bool Post(byte[] header, int count, byte[] payload)
        {
            var copy = new byte[count];
            Buffer.BlockCopy(header, 0, copy, 0, count);
            lock (_lock)
            {
                if (_closing || _waitingBytes + count > TransportTimes.MaxWaitingBytes) return false;
                _waitingBytes += count;
                _waiting.Enqueue(new Waiting { Header = copy, Payload = payload });
                Wake();
            }
            return true;
        }

        public void Close(int milliseconds)
        {
            lock (_lock)
            {
                _closing = true;
                Wake();
            }
            if (_thread != null && Thread.CurrentThread != _thread) _thread.Join(milliseconds);
        }

        private void Wake()
        {
            if (_wakeOut != IntPtr.Zero) LibZmq.Send(_wakeOut, _wakeByte, 1, LibZmq.DontWait);
        }

        // ------------------------------------------------------------------ the thread

        private void Run()
        {
            WorldwireException problem;
            try
            {
                OpenSockets();
                problem = Serve();
            }
            catch (WorldwireException error)
            {
                problem = error;
            }
            catch (Exception error) when (error is DllNotFoundException || error is EntryPointNotFoundException)
            {
                problem = new WorldwireException(
                    ErrorCode.MissingExtra, "libzmq is not installed", "libzmq 4.3 or later, built with CURVE",
                    error.Message, "See the page on encryption, or leave the key empty.");
            }
            _sink.Abandon();
            bool unclear = problem.Code == ErrorCode.WrongKey && !_closing;
            CloseSockets();
            if (unclear && MechanismProbe.SaysNull(_address)) problem = TransportProblems.KeyNotWanted(_address);
            _sink.Closed(problem);
        }

        private void OpenSockets()
        {
            _message = Marshal.AllocHGlobal(LibZmq.MessageBytes);
            _context = LibZmq.zmq_ctx_new();
            _wakeIn = LibZmq.zmq_socket(_context, LibZmq.Pair);
            LibZmq.Bind(_wakeIn, WakeAddress);
            _dealer = LibZmq.zmq_socket(_context, LibZmq.Dealer);
            SetKeys();
            LibZmq.Set(_dealer, LibZmq.OptionLinger, LingerMilliseconds);
            LibZmq.Set(_dealer, LibZmq.OptionReconnectInterval, NoReconnect);
            LibZmq.Monitor(_dealer, MonitorAddress);
            _monitor = LibZmq.zmq_socket(_context, LibZmq.Pair);
            LibZmq.Connect(_monitor, MonitorAddress);
            lock (_lock)
            {
                _wakeOut = LibZmq.zmq_socket(_context, LibZmq.Pair);
                LibZmq.Connect(_wakeOut, WakeAddress);
            }
            LibZmq.Connect(_dealer, _address.ToString());
        }

        private void SetKeys()
        {
            string publicKey = _publicKey, secretKey = _secretKey;
            if (publicKey.Length == 0 || secretKey.Length == 0) LibZmq.KeyPair(out publicKey, out secretKey);
            LibZmq.Set(_dealer, LibZmq.OptionCurveServerKey, _serverKey);
            LibZmq.Set(_dealer, LibZmq.OptionCurvePublicKey, publicKey);
            LibZmq.Set(_dealer, LibZmq.OptionCurveSecretKey, secretKey);
        }

        /// <summary>Until the connection is over; why it is.</summary>
        private WorldwireException Serve()
        {
            long started = _lastReceivedNs = Clock.NowNs;
            using (var items = new PollItems(_dealer, _monitor, _wakeIn))
            {
                while (true)
                {
                    items.Wait(TransportTimes.TickMilliseconds);
                    if (items.IsReady(WakeItem)) Drain(_wakeIn);
                    if (_open) SendWaiting();
                    if (_closing) return TransportProblems.WentAway(_address);
                    WorldwireException problem = items.IsReady(MonitorItem) ? Watch() : null;
                    if (problem == null && items.IsReady(DealerItem)) ReceiveAll();
                    if (problem == null) problem = _open ? _sink.Tick(_lastReceivedNs) : CheckPatience(started);
                    if (problem != null) return problem;
                }
            }
        }

        private WorldwireException CheckPatience(long started)
        {
            double waited = Clock.Milliseconds(Clock.NowNs - started);
            if (waited < TransportTimes.HandshakeMilliseconds) return null;
            return _connected ? TransportProblems.KeyWrong(_address) : TransportProblems.NothingListens(_address);
        }

        private void SendWaiting()
        {
            while (true)
            {
                Waiting next;
                lock (_lock)
                {
                    if (_waiting.Count == 0) return;
                    next = _waiting.Dequeue();
                    _waitingBytes -= next.Header.Length;
                }
                bool more = next.Payload != null;
                bool sent = LibZmq.Send(
                    _dealer, next.Header, next.Header.Length, LibZmq.DontWait | (more ? LibZmq.SendMore : 0));
                if (sent && more) sent = LibZmq.Send(_dealer, next.Payload, next.Payload.Length, LibZmq.DontWait);
                if (!sent) throw TransportProblems.TakesNothing(_address);
            }
        }

        // ------------------------------------------------------------------ what comes

        private void ReceiveAll()
        {
            while (TryReceive(_dealer))
            {
                _lastReceivedNs = Clock.NowNs;
                ReceiveHeader();
            }
        }

        /// <summary>Part 0 is in _message.</summary>
        private void ReceiveHeader()
        {
            long length = (long)LibZmq.zmq_msg_size(_message);
            bool more = LibZmq.zmq_msg_more(_message) != 0;
            bool fits = length <= Protocol.MaxHeaderBytes;
            if (fits && length > _header.Length) _header = new byte[Protocol.MaxHeaderBytes];
            if (fits) Marshal.Copy(LibZmq.zmq_msg_data(_message), _header, 0, (int)length);
            LibZmq.zmq_msg_close(_message);
            if (fits) _sink.Header(_header, (int)length);
            if (more) ReceivePayload(fits);
            else if (fits) _sink.Complete(-1);
        }

        private void ReceivePayload(bool wanted)
        {
            TryReceive(_dealer);
            long length = (long)LibZmq.zmq_msg_size(_message);
            bool more = LibZmq.zmq_msg_more(_message) != 0;
            byte[] buffer = wanted ? _sink.PayloadBuffer(length) : null;
            if (buffer != null) Marshal.Copy(LibZmq.zmq_msg_data(_message), buffer, 0, (int)length);
            LibZmq.zmq_msg_close(_message);
            if (more || !wanted) _sink.Abandon();
            else _sink.Complete(length);
            while (more && TryReceive(_dealer))
            {
                more = LibZmq.zmq_msg_more(_message) != 0;
                LibZmq.zmq_msg_close(_message);
            }
        }

        private bool TryReceive(IntPtr socket)
        {
            LibZmq.zmq_msg_init(_message);
            if (LibZmq.zmq_msg_recv(_message, socket, LibZmq.DontWait) >= 0) return true;
            LibZmq.zmq_msg_close(_message);
            return false;
        }

        private void Drain(IntPtr socket)
        {
            while (TryReceive(socket)) LibZmq.zmq_msg_close(_message);
        }

        // ------------------------------------------------------------------ the handshake

        /// <summary>Reads the monitor: two parts an event, the first of them a number and a value.</summary>
        private WorldwireException Watch()
        {
            WorldwireException problem = null;
            while (TryReceive(_monitor))
            {
                IntPtr data = LibZmq.zmq_msg_data(_message);
                int kind = (ushort)Marshal.ReadInt16(data);
                int value = Marshal.ReadInt16(data, 2) & 0xffff | Marshal.ReadInt16(data, 4) << 16;
                LibZmq.zmq_msg_close(_message);
                if (TryReceive(_monitor)) LibZmq.zmq_msg_close(_message);
                problem = problem ?? OnEvent(kind, value);
            }
            return problem;
        }

        private WorldwireException OnEvent(int kind, int value)
        {
            switch (kind)
            {
                case LibZmq.EventConnected:
                    _connected = true;
                    return null;
                case LibZmq.EventHandshakeSucceeded:
                    _open = true;
                    _sink.Opened();
                    return null;
                case LibZmq.EventHandshakeFailedProtocol:
                    return value == LibZmq.MechanismMismatch
                        ? TransportProblems.KeyNotWanted(_address)
                        : TransportProblems.KeyWrong(_address);
                case LibZmq.EventHandshakeFailedAuth:
                case LibZmq.EventHandshakeFailedNoDetail:
                    return TransportProblems.KeyWrong(_address);
                case LibZmq.EventClosed:
                case LibZmq.EventDisconnected:
                    if (_open) return TransportProblems.WentAway(_address);
                    if (_connected) return TransportProblems.KeyWrong(_address);
                    return TransportProblems.NothingListens(_address);
                default:
                    return null;
            }
        }

        // ------------------------------------------------------------------ the end

        private void CloseSockets()
        {
            lock (_lock)
            {
                _closing = true;
                Free(ref _wakeOut);
            }
            Free(ref _wakeIn);
            Free(ref _dealer);
            Free(ref _monitor);
            if (_context != IntPtr.Zero) LibZmq.zmq_ctx_term(_context);
            _context = IntPtr.Zero;
            if (_message != IntPtr.Zero) Marshal.FreeHGlobal(_message);
            _message = IntPtr.Zero;
        }

        private static void Free(ref IntPtr socket)
        {
            if (socket != IntPtr.Zero) LibZmq.zmq_close(socket);
            socket = IntPtr.Zero;
        }
    }
}
#endif
