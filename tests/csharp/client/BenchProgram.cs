using System;
using System.Globalization;

namespace Worldwire.Tests
{
    /// <summary>
    /// bench ADDR SECONDS FORMAT [WINDOW]: live frames a second, their latency, and garbage collections.
    /// </summary>
    internal static class BenchProgram
    {
        internal const int DefaultWindow = 8;

        private const double WarmUpSeconds = 0.5;
        private const double PatienceSeconds = 30;
        private const int MaxFrames = 1 << 21;

        internal static int Run(string address, double seconds, string format, int window)
        {
            var client = new WorldClient(new ClientOptions { Address = address, Name = "worldwire-csharp-bench" });
            client.Open();
            Await(client, () => client.State == WorldState.Ready);
            WorldSession session = Answer(client, client.OpenSession(null, Protocol.DefaultJpegQuality, format)).Session;
            Answer(client, session.Reset(new WorldStart()));
            Answer(client, session.Start(window));
            Count(client, session, WarmUpSeconds, null);
            var latencies = new long[MaxFrames];
            int collections = GC.CollectionCount(0);
            long start = Clock.NowNs;
            int frames = Count(client, session, seconds, latencies);
            double elapsed = Clock.Seconds(Clock.NowNs - start);
            collections = GC.CollectionCount(0) - collections;
            client.Close();
            Array.Sort(latencies, 0, frames);
            Console.WriteLine(string.Format(
                CultureInfo.InvariantCulture,
                "{{\"frames\": {0}, \"seconds\": {1:0.###}, \"p50_ms\": {2:0.###}, \"p99_ms\": {3:0.###}, \"gen0\": {4}, "
                + "\"skipped\": {5}, \"dropped\": {6}}}",
                frames, elapsed, Percentile(latencies, frames, 50), Percentile(latencies, frames, 99), collections,
                session.Frames.Skipped, session.Frames.Dropped));
            return 0;
        }

        /// <summary>Takes frames for so long; their ages go to `latencies`, unless that is null.</summary>
        private static int Count(WorldClient client, WorldSession session, double seconds, long[] latencies)
        {
            int frames = 0;
            for (long end = Clock.NowNs + Clock.FromSeconds(seconds); Clock.NowNs < end && frames < MaxFrames;)
            {
                client.Update();
                for (WorldFrame frame = session.TakeNext(); frame != null; frame = session.TakeNext())
                {
                    if (latencies != null) latencies[frames] = frame.ReceivedNs - frame.Info.TimeNs;
                    frames++;
                }
                if (session.IsOver) throw session.Error;
                client.Wait(20);
            }
            return frames;
        }

        private static double Percentile(long[] sorted, int count, int percent) =>
            count == 0 ? 0 : Clock.Milliseconds(sorted[Math.Min(count - 1, (int)((long)count * percent / 100))]);

        private static WorldRequest Answer(WorldClient client, WorldRequest request)
        {
            Await(client, () => request.IsDone);
            if (request.Error != null) throw request.Error;
            return request;
        }

        private static void Await(WorldClient client, Func<bool> condition)
        {
            long end = Clock.NowNs + Clock.FromSeconds(PatienceSeconds);
            for (client.Update(); !condition(); client.Update())
            {
                if (Clock.NowNs > end) throw client.Problem ?? (Exception)new TimeoutException();
                client.Wait(5);
            }
        }
    }
}
