using System;
using System.Collections.Generic;
using System.Net;
using System.Net.Sockets;
using System.Threading;

namespace Worldwire.Tests
{
    /// <summary>
    /// hostile ROUNDS: servers that shake hands and then send frames with wrong flags, lengths and bytes. Each
    /// connection must end by itself when the server is gone, once, and ask for no absurd buffer.
    /// </summary>
    internal static class HostileProgram
    {
        private const int PatienceMilliseconds = 5000;
        private const int AllowedGrowthBytes = 16 << 20;

        private sealed class Sink : ITransportSink
        {
            internal readonly ManualResetEvent Ended = new ManualResetEvent(false);
            internal readonly Link Link;
            internal int Closings;
            private readonly ITransportSink _inner;

            internal Sink(ITransport transport)
            {
                Link = new Link(transport, new object(), new PingMeter());
                _inner = Link;
            }

            public void Opened() => _inner.Opened();

            public void Header(byte[] data, int count) => _inner.Header(data, count);

            public byte[] PayloadBuffer(long length) => _inner.PayloadBuffer(length);

            public void Complete(long payloadLength) => _inner.Complete(payloadLength);

            public void Abandon() => _inner.Abandon();

            public WorldwireException Tick(long lastReceivedNs) => _inner.Tick(lastReceivedNs);

            public void Closed(WorldwireException problem)
            {
                Closings++;
                _inner.Closed(problem);
                Ended.Set();
            }
        }

        internal static int Run(int rounds)
        {
            var listener = new TcpListener(IPAddress.Loopback, 0);
            listener.Start();
            int port = ((IPEndPoint)listener.LocalEndpoint).Port;
            var problems = new SortedDictionary<string, int>();
            long before = GC.GetTotalMemory(true);
            for (int round = 0; round < rounds; round++)
            {
                string problem = Connect(listener, port, new Random(round));
                int count;
                problems.TryGetValue(problem, out count);
                problems[problem] = count + 1;
            }
            long grown = GC.GetTotalMemory(true) - before;
            PlayProgram.Check(grown < AllowedGrowthBytes, "memory grew by " + grown);
            PlayProgram.Say("rounds", rounds, "kinds", problems.Count);
            return 0;
        }

        /// <summary>One connection to a hostile server; how it ended.</summary>
        private static string Connect(TcpListener listener, int port, Random random)
        {
            var transport = new ZmtpTransport(ServerAddress.Parse("127.0.0.1:" + port));
            var sink = new Sink(transport);
            sink.Link.Attach(1, new FrameQueue(new object(), 2));
            transport.Start(sink);
            using (Socket socket = listener.AcceptSocket())
            {
                Serve(socket, random);
            }
            PlayProgram.Check(sink.Ended.WaitOne(PatienceMilliseconds), "the connection ends");
            transport.Close(1000);
            PlayProgram.Check(sink.Closings == 1, "it ends once");
            return sink.Link.Problem.Message;
        }

        private static void Serve(Socket socket, Random random)
        {
            byte[] greeting = ZmtpFrames.Greeting();
            byte[] ready = ZmtpFrames.Ready();
            if (random.Next(8) == 0) greeting[random.Next(greeting.Length)] ^= (byte)random.Next(256);
            if (random.Next(8) == 0) ready[random.Next(ready.Length)] ^= (byte)random.Next(256);
            try
            {
                socket.Send(greeting);
                socket.Send(ready);
                for (int frame = 0; frame < 20; frame++) socket.Send(Frame(random));
            }
            catch (SocketException)
            {
                // The client hung up, as it may.
            }
        }

        /// <summary>A frame of a frame message, whole or spoiled.</summary>
        private static byte[] Frame(Random random)
        {
            var writer = new MsgPackWriter();
            new FrameMessage { Session = 1, Epoch = 1, Format = "rgba", Height = 4, Width = 4 }.Encode(writer);
            var batch = new Outbox.Batch();
            batch.Append((byte)random.Next(2), writer.Data, writer.Count);
            if (random.Next(2) == 0) batch.Append((byte)random.Next(8), new byte[64], 64);
            var bytes = new byte[batch.Count];
            Buffer.BlockCopy(batch.Data, 0, bytes, 0, bytes.Length);
            if (random.Next(4) == 0) bytes[random.Next(3)] = (byte)random.Next(256);
            return bytes;
        }
    }
}
