using System;
using System.Collections.Generic;
using System.Diagnostics;

namespace Worldwire.Tests
{
    /// <summary>
    /// A scenario against a real server; a line for each step, an exception where something is not so.
    /// </summary>
    internal static class PlayProgram
    {
        private const double PatienceSeconds = 60;

        /// <summary>
        /// play ADDR FRAMES: open, reset, live frames, receipts, prompt, reset, save, restore, branch, step.
        /// </summary>
        internal static int Play(string address, int frames)
        {
            var live = new LiveWorld(new LiveOptions
            {
                Client = new ClientOptions { Address = address },
                Start = new WorldStart { Seed = 7 },
                Pacing = Pacing.Newest,
            });
            live.Open();
            Until(live, () => live.State == WorldState.Playing, "playing");
            Say("playing", live.Client.Welcome.World.Name + " " + live.Session.Format);
            TakeFrames(live, frames);
            CheckReset(live);
            CheckSaves(live);
            live.Close();
            Say("closed", live.State);
            return 0;
        }

        private static void TakeFrames(LiveWorld live, int frames)
        {
            long lastIndex = -1, taken = 0, ack = 0;
            Until(live, () =>
            {
                live.Control(new Control { Keys = taken > frames / 2 ? Keys.Left : Keys.Forward, YawDeg = 0.5 });
                WorldFrame frame = live.Session.TakeNext();
                if (frame == null) return false;
                Check(frame.Info.Index > lastIndex, "frames in order");
                int pixels = frame.Info.Height * frame.Info.Width;
                Check(frame.PixelBytes == pixels * FrameFormat.BytesPerPixel(frame.Info.Format), "all pixels");
                lastIndex = frame.Info.Index;
                ack = frame.Info.Ack;
                return ++taken >= frames;
            }, "frames");
            Check(ack > 0, "receipts");
            Say("frames", taken, "input_ms", live.Session.InputMs, "round_trip_ms", live.Client.RoundTripMs);
        }

        private static void CheckReset(LiveWorld live)
        {
            Await(live, live.Prompt("snow"), refusalIs: null);
            long epoch = live.Session.Epoch;
            Await(live, live.Reset(new WorldStart { Seed = 3 }), refusalIs: null);
            Check(live.Session.Epoch == epoch + 1, "a new epoch");
            WorldFrame frame = null;
            Until(
                live, () => (frame = live.Session.TakeNext()) != null && frame.Info.Index > 0, "frames after a reset");
            Check(frame.Info.Epoch == epoch + 1, "only frames of the new epoch");
            Say("reset", live.Session.Epoch);
        }

        private static void CheckSaves(LiveWorld live)
        {
            WorldSession session = live.Session;
            Await(live, session.Pause(), refusalIs: null);
            WorldRequest kept = Await(live, session.Save(true), refusalIs: null);
            WorldRequest saved = Await(live, session.Save(false), refusalIs: null);
            Check(saved.Payload.Length == ((SavedMessage)saved.Answer).Size, "the state came whole");
            WorldSession branch = Await(live, session.Branch(), refusalIs: null).Session;
            ulong first = Step(live, session);
            Check(Step(live, branch) == first, "the branch goes on the same way");
            Await(live, session.Restore(kept.State), refusalIs: null);
            Check(Step(live, session) == first, "the kept state goes on the same way");
            Await(live, session.Restore(saved.Payload), refusalIs: null);
            Check(Step(live, session) == first, "the saved state goes on the same way");
            Await(live, session.Restore("no such state"), refusalIs: ErrorCode.BadState);
            Await(live, branch.Close(), refusalIs: null);
            Say("saves", saved.Payload.Length, "branch", branch.Id);
        }

        /// <summary>One step in lockstep; a hash of its pictures.</summary>
        private static ulong Step(LiveWorld live, WorldSession session)
        {
            while (session.TakeNext() != null)
            {
            }
            var controls = new List<Control>();
            for (int i = 0; i < session.FramesPerStep; i++) controls.Add(new Control { Keys = Keys.Forward });
            Await(live, session.Step(controls), refusalIs: null);
            ulong hash = 14695981039346656037;
            int count = 0;
            for (WorldFrame frame = session.TakeNext(); frame != null; frame = session.TakeNext(), count++)
            {
                for (int i = 0; i < frame.PixelBytes; i++) hash = unchecked((hash ^ frame.Pixels[i]) * 1099511628211);
            }
            Check(count == controls.Count, "as many frames as controls");
            return hash;
        }

        internal static WorldRequest Await(LiveWorld live, WorldRequest request, string refusalIs)
        {
            Until(live, () => request.IsDone, request.What);
            Check((request.Error?.Code) == refusalIs, request.What + ": " + request.Error?.Message);
            return request;
        }

        internal static void Until(LiveWorld live, Func<bool> condition, string what, double seconds = PatienceSeconds)
        {
            var watch = Stopwatch.StartNew();
            while (true)
            {
                live.Update();
                if (condition()) return;
                if (watch.Elapsed.TotalSeconds > seconds)
                {
                    throw new TimeoutException("waited for " + what + "; state " + live.State + "; " + live.Describe());
                }
                live.Client.Wait(5);
            }
        }

        internal static void Check(bool holds, string what)
        {
            if (!holds) throw new InvalidOperationException("not so: " + what);
        }

        internal static void Say(params object[] words)
        {
            Console.WriteLine(string.Join(" ", words));
            Console.Out.Flush();
        }
    }
}
