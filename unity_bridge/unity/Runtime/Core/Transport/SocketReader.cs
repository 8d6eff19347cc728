using System;
using System.Net.Sockets;
using System.Threading;

namespace Worldwire
{
    /// <summary>
    /// Exactly so many bytes from a socket. Small reads come out of one buffer; large ones go from the socket
    /// straight to where they are wanted.
    /// </summary>
    internal sealed class SocketReader
    {
        private const int BufferBytes = 64 * 1024;

        private readonly Socket _socket;
        private readonly byte[] _buffer = new byte[BufferBytes];
        private int _start;
        private int _end;
        private long _lastReceivedNs = Clock.NowNs;

        internal SocketReader(Socket socket)
        {
            _socket = socket;
        }

        /// <summary>When the last byte came; any thread.</summary>
        internal long LastReceivedNs => Interlocked.Read(ref _lastReceivedNs);

        /// <summary>Fills the place; EndOfConnection when the other side has closed.</summary>
        internal void Read(byte[] into, int offset, int count)
        {
            int held = Math.Min(count, _end - _start);
            Buffer.BlockCopy(_buffer, _start, into, offset, held);
            _start += held;
            offset += held;
            count -= held;
            while (count >= BufferBytes)
            {
                int came = Receive(into, offset, count);
                offset += came;
                count -= came;
            }
            if (count == 0) return;
            FillTo(count);
            Read(into, offset, count);
        }

        internal byte ReadByte()
        {
            if (_start == _end) FillTo(1);
            return _buffer[_start++];
        }

        internal void Drop(long count)
        {
            while (count > 0)
            {
                if (_start == _end) FillTo(1);
                int held = (int)Math.Min(count, _end - _start);
                _start += held;
                count -= held;
            }
        }

        private void FillTo(int count)
        {
            _start = 0;
            _end = 0;
            while (_end < count) _end += Receive(_buffer, _end, BufferBytes - _end);
        }

        private int Receive(byte[] into, int offset, int count)
        {
            int came = _socket.Receive(into, offset, count, SocketFlags.None);
            if (came <= 0) throw new EndOfConnectionException();
            Interlocked.Exchange(ref _lastReceivedNs, Clock.NowNs);
            return came;
        }
    }

    /// <summary>The other side has closed the connection.</summary>
    internal sealed class EndOfConnectionException : Exception
    {
    }
}
