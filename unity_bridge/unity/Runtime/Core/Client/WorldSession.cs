using System;
using System.Collections.Generic;

namespace Worldwire
{
    /// <summary>How a world begins: a prompt, a shipped image by name, or an image of the caller's.</summary>
    public struct WorldStart
    {
        public string Prompt;
        public long Seed;

        /// <summary>One of WorldInfo.Views, null for the image's own.</summary>
        public string View;

        /// <summary>The name of a shipped seed image.</summary>
        public string ImageName;

        /// <summary>Rows of RGB from the top, of the size of the world.</summary>
        public byte[] ImageRgb;

        public int ImageHeight;
        public int ImageWidth;

        /// <summary>Makes ImageRgb once the size of the world is known.</summary>
        public Func<WorldInfo, byte[]> ImageFor;
    }

    /// <summary>
    /// One player's walk. Requests are answered in WorldClient.Update. All of it belongs to the thread that calls
    /// Update.
    /// </summary>
    public sealed class WorldSession
    {
        /// <summary>
        /// Frames beside one step that may be on their way: the next step begins while they are shown.
        /// </summary>
        public const int LeadFrames = 4;

        /// <summary>Who did not look for so long gets the newest frame, not the backlog.</summary>
        public const double StallSeconds = 1;

        private const int FirstCapacity = 4;

        private readonly WorldClient _client;
        private readonly InputMessage _input = new InputMessage();
        private readonly CreditMessage _credit = new CreditMessage();
        private readonly ReceiptMeter _receipts = new ReceiptMeter();
        private long _lastTakeNs;

        internal WorldSession(WorldClient client, OpenedMessage opened)
        {
            _client = client;
            Id = opened.Session;
            Format = opened.Format;
            FramesPerStep = opened.FramesPerStep;
            Frames = new FrameQueue(client.Gate, FirstCapacity);
        }

        public long Id { get; }

        /// <summary>Of the payload of its frames.</summary>
        public string Format { get; private set; }

        /// <summary>How many frames the next step has.</summary>
        public long FramesPerStep { get; private set; }

        /// <summary>How many resets and restores there were.</summary>
        public long Epoch => Frames.Epoch;

        /// <summary>Frames that may be under way; 0 while the session is not live.</summary>
        public int Window { get; private set; }

        public bool IsLive => Window > 0;

        /// <summary>Closed, failed, or lost with its server.</summary>
        public bool IsOver { get; private set; }

        /// <summary>The newest complaint about this session; TakeError clears it.</summary>
        public WorldwireException Error { get; private set; }

        public FrameQueue Frames { get; }

        /// <summary>The number of the newest input.</summary>
        public long Seq { get; private set; }

        /// <summary>From sending an input to taking the first frame that shows it; NaN before the first.</summary>
        public double InputMs => _receipts.InputMs;

        // ------------------------------------------------------------------ requests

        /// <summary>Starts anew; frame 0 comes as a frame, a live session stays live.</summary>
        public WorldRequest Reset(WorldStart start)
        {
            if (start.ImageFor != null)
            {
                WorldInfo world = _client.Welcome.World;
                start.ImageRgb = start.ImageFor(world);
                start.ImageHeight = world.Height;
                start.ImageWidth = world.Width;
            }
            var message = new ResetMessage
            {
                Session = Id, Seed = start.Seed, View = Some(start.View), Prompt = Some(start.Prompt),
                Image = Some(start.ImageName),
            };
            if (start.ImageRgb != null)
            {
                message.ImageHeight = start.ImageHeight;
                message.ImageWidth = start.ImageWidth;
            }
            return _client.Request(message, start.ImageRgb);
        }

        /// <summary>What the world is told from the next step on; all else goes on.</summary>
        public WorldRequest Prompt(string prompt) =>
            _client.Request(new PromptMessage { Session = Id, Prompt = prompt });

        /// <summary>The next FramesPerStep frames, one control for each; not while live.</summary>
        public WorldRequest Step(IList<Control> controls)
        {
            var message = new StepMessage { Session = Id };
            message.Inputs.AddRange(controls);
            Frames.Grow(controls.Count + 1);
            return _client.Request(message);
        }

        /// <summary>Lets the world run by itself under the newest input. 0: a step and LeadFrames.</summary>
        public WorldRequest Start(int window = 0)
        {
            long wanted = window > 0 ? window : FramesPerStep + LeadFrames;
            Window = (int)Math.Min(wanted, Protocol.MaxWindowFrames);
            Frames.Grow(Window + 1);
            _lastTakeNs = Clock.NowNs;
            return _client.Request(new StartMessage { Session = Id, Window = Window });
        }

        public WorldRequest Pause()
        {
            Window = 0;
            return _client.Request(new PauseMessage { Session = Id });
        }

        /// <summary>The whole state; with keep it stays on the server under a name, which is quick.</summary>
        public WorldRequest Save(bool keep) => _client.Request(new SaveMessage { Session = Id, Keep = keep });

        /// <summary>Goes on from a state that the server keeps.</summary>
        public WorldRequest Restore(string state) =>
            _client.Request(new RestoreMessage { Session = Id, State = state });

        /// <summary>Goes on from a state that Save gave.</summary>
        public WorldRequest Restore(byte[] state) => _client.Request(new RestoreMessage { Session = Id }, state);

        /// <summary>A second session that goes on from here.</summary>
        public WorldRequest Branch() => _client.Request(new BranchMessage { Session = Id });

        public WorldRequest Close()
        {
            IsOver = true;
            return _client.Request(new CloseMessage { Session = Id });
        }

        // ------------------------------------------------------------------ live

        /// <summary>
        /// What the player does from now on; look is the turn since the last input. Returns the number of this
        /// input: the first frame with an Ack at least that large shows it. No allocation.
        /// </summary>
        public long SendInput(Control control)
        {
            _input.Control = control;
            _input.Session = Id;
            _input.Seq = ++Seq;
            _receipts.Sent(Seq, Clock.NowNs);
            _client.Send(_input);
            return Seq;
        }

        /// <summary>
        /// The newest frame, skipping older ones; null if none came. Valid until the next one is taken.
        /// </summary>
        public WorldFrame TakeNewest() => Take(int.MaxValue);

        /// <summary>
        /// The next frame in order; after a stall the newest. Valid until the next one is taken.
        /// </summary>
        public WorldFrame TakeNext() => Take(1);

        /// <summary>
        /// Of the next `count` frames the last, null for none of them; after a stall the newest.
        /// </summary>
        internal WorldFrame Take(int count)
        {
            long now = Clock.NowNs;
            int waiting = Frames.Count;
            bool stalled = IsLive && Clock.Seconds(now - _lastTakeNs) > StallSeconds;
            int wanted = stalled ? waiting : Math.Min(count, waiting);
            WorldFrame frame = wanted == 0 ? null : Frames.Take(wanted - 1);
            _lastTakeNs = now;
            if (frame != null) _receipts.Shown(frame.Info.Ack, now);
            GiveCredit();
            return frame;
        }

        /// <summary>Takes and forgets the newest complaint.</summary>
        public WorldwireException TakeError()
        {
            WorldwireException error = Error;
            Error = null;
            return error;
        }

        // ------------------------------------------------------------------ for the client

        internal void Done(DoneMessage done)
        {
            FramesPerStep = done.FramesPerStep;
            Frames.Advance(done.Epoch);
        }

        /// <summary>It lived through a lost connection: ready, not live.</summary>
        internal void Resume(ResumedSession resumed)
        {
            Window = 0;
            Format = resumed.Format;
            FramesPerStep = resumed.FramesPerStep;
            Seq = Math.Max(Seq, resumed.Seq);
            Frames.Advance(resumed.Epoch);
            Frames.Clear();
        }

        internal void Fail(WorldwireException error, bool fatal)
        {
            Error = error;
            if (!fatal) return;
            IsOver = true;
            Window = 0;
        }

        private void GiveCredit()
        {
            int owed = Frames.TakeCredit();
            if (owed == 0 || !IsLive) return;
            _credit.Session = Id;
            _credit.Frames = Math.Min(owed, Protocol.MaxWindowFrames);
            _client.Send(_credit);
        }

        private static string Some(string text) => string.IsNullOrEmpty(text) ? null : text;
    }
}
