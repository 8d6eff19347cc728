using System.Collections.Generic;

namespace Worldwire
{
    /// <summary>A part of a message that is a map of its own.</summary>
    public abstract class Part
    {
        internal abstract Field[] Required { get; }

        internal abstract bool Read(Field field, MsgPackReader reader);

        internal abstract void Write(MsgPackWriter writer);
    }

    /// <summary>What a server tells about the world that it plays.</summary>
    public sealed class WorldInfo : Part
    {
        private static readonly Field[] Needed =
        {
            Field.Name, Field.Height, Field.Width, Field.FramesPerSecond, Field.FramesPerStep,
            Field.HorizontalFovDeg, Field.TrainedKeys, Field.Views, Field.SeedImages,
        };

        private static readonly byte[] EmptyMap = { 0x80 };

        public string Name = "";
        public int Height;
        public int Width;
        public double FramesPerSecond;
        public long FramesPerStep;
        public double HorizontalFovDeg;
        public readonly List<string> TrainedKeys = new List<string>();
        public readonly List<string> Views = new List<string>();
        public readonly List<string> SeedImages = new List<string>();

        /// <summary>A msgpack map of what a server tells beyond; for people, not to depend on.</summary>
        public byte[] Extra = EmptyMap;

        internal override Field[] Required => Needed;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Name: Name = reader.AnyText(); return true;
                case Field.Height: Height = reader.Small(1, Protocol.MaxSidePixels); return true;
                case Field.Width: Width = reader.Small(1, Protocol.MaxSidePixels); return true;
                case Field.FramesPerSecond: FramesPerSecond = reader.Real(); return true;
                case Field.FramesPerStep: FramesPerStep = reader.Counted(); return true;
                case Field.HorizontalFovDeg: HorizontalFovDeg = reader.Real(); return true;
                case Field.TrainedKeys: reader.Texts(TrainedKeys); return true;
                case Field.Views: reader.Texts(Views); return true;
                case Field.SeedImages: reader.Texts(SeedImages); return true;
                case Field.Extra: Extra = MapBytes(reader); return true;
                default: return false;
            }
        }

        private static byte[] MapBytes(MsgPackReader reader)
        {
            int start = reader.Position;
            reader.Map();
            reader.Position = start;
            return reader.RawValue();
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Name, Name);
            writer.Put(Field.Height, Height);
            writer.Put(Field.Width, Width);
            writer.Put(Field.FramesPerSecond, FramesPerSecond);
            writer.Put(Field.FramesPerStep, FramesPerStep);
            writer.Put(Field.HorizontalFovDeg, HorizontalFovDeg);
            writer.Put(Field.TrainedKeys, TrainedKeys);
            writer.Put(Field.Views, Views);
            writer.Put(Field.SeedImages, SeedImages);
            writer.Put(Field.Extra);
            writer.Raw(Extra, 0, Extra.Length);
        }
    }

    /// <summary>What a server grants (specification, section 11).</summary>
    public sealed class Limits : Part
    {
        private static readonly Field[] Needed = new Field[0];

        public long MessageBytes = 268435456;
        public long Sessions = 4;
        public long MessagesPerSecond = 2000;
        public long QueuedRequests = 64;
        public long KeptStates = 16;
        public long KeptBytes = 1073741824;
        public double HeartbeatSeconds = Protocol.HeartbeatSeconds;
        public double LivenessSeconds = Protocol.LivenessSeconds;
        public double ResumeSeconds = Protocol.ResumeSeconds;

        internal override Field[] Required => Needed;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.MessageBytes: MessageBytes = reader.Counted(); return true;
                case Field.Sessions: Sessions = reader.Counted(); return true;
                case Field.MessagesPerSecond: MessagesPerSecond = reader.Counted(); return true;
                case Field.QueuedRequests: QueuedRequests = reader.Counted(); return true;
                case Field.KeptStates: KeptStates = reader.Counted(); return true;
                case Field.KeptBytes: KeptBytes = reader.Counted(); return true;
                case Field.HeartbeatS: HeartbeatSeconds = reader.Seconds(); return true;
                case Field.LivenessS: LivenessSeconds = reader.Seconds(); return true;
                case Field.ResumeS: ResumeSeconds = reader.Seconds(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.MessageBytes, MessageBytes);
            writer.Put(Field.Sessions, Sessions);
            writer.Put(Field.MessagesPerSecond, MessagesPerSecond);
            writer.Put(Field.QueuedRequests, QueuedRequests);
            writer.Put(Field.KeptStates, KeptStates);
            writer.Put(Field.KeptBytes, KeptBytes);
            writer.Put(Field.HeartbeatS, HeartbeatSeconds);
            writer.Put(Field.LivenessS, LivenessSeconds);
            writer.Put(Field.ResumeS, ResumeSeconds);
        }
    }

    /// <summary>A session that lived through a lost connection.</summary>
    public sealed class ResumedSession : Part
    {
        private static readonly Field[] Needed =
        {
            Field.Session, Field.Epoch, Field.FramesPerStep, Field.Format,
        };

        public long Session;
        public long Epoch;
        public long FramesPerStep;
        public string Format = "";

        /// <summary>Of the newest input that the server took.</summary>
        public long Seq;

        internal override Field[] Required => Needed;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Session: Session = reader.Id(); return true;
                case Field.Epoch: Epoch = reader.Counted(); return true;
                case Field.FramesPerStep: FramesPerStep = reader.Counted(); return true;
                case Field.Format: Format = reader.Name(); return true;
                case Field.Seq: Seq = reader.Counted(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Session, Session);
            writer.Put(Field.Epoch, Epoch);
            writer.Put(Field.FramesPerStep, FramesPerStep);
            writer.Put(Field.Format, Format);
            writer.Put(Field.Seq, Seq);
        }
    }

    public sealed class WelcomeMessage : Message, IRequested
    {
        private static readonly Field[] Needed =
        {
            Field.Request, Field.Version, Field.Server, Field.World, Field.Limits,
        };

        public long Request { get; set; }
        public long Major;
        public long Minor;
        public string Server = "";
        public WorldInfo World = new WorldInfo();
        public Limits Limits = new Limits();
        public string Token = "";
        public readonly List<ResumedSession> Resumed = new List<ResumedSession>();
        public readonly List<string> Formats = new List<string> { FrameFormat.Rgb };

        public override string Type => "welcome";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = 0;
            Major = Minor = 0;
            Server = Token = "";
            World = new WorldInfo();
            Limits = new Limits();
            Resumed.Clear();
            Formats.Clear();
            Formats.Add(FrameFormat.Rgb);
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.Version: reader.Version(out Major, out Minor); return true;
                case Field.Server: Server = reader.AnyText(); return true;
                case Field.World: MessageCodec.ReadPart(World = new WorldInfo(), reader); return true;
                case Field.Limits: MessageCodec.ReadPart(Limits = new Limits(), reader); return true;
                case Field.Token: Token = reader.Name(); return true;
                case Field.Resumed: ReadResumed(reader); return true;
                case Field.Formats: reader.Texts(Formats); return true;
                default: return false;
            }
        }

        private void ReadResumed(MsgPackReader reader)
        {
            Resumed.Clear();
            for (int left = reader.Array(); left > 0; left--)
            {
                var session = new ResumedSession();
                MessageCodec.ReadPart(session, reader);
                Resumed.Add(session);
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.PutVersion(Major, Minor);
            writer.Put(Field.Server, Server);
            writer.Put(Field.World);
            MessageCodec.WritePart(World, writer);
            writer.Put(Field.Limits);
            MessageCodec.WritePart(Limits, writer);
            writer.Put(Field.Token, Token);
            writer.Put(Field.Resumed);
            writer.Array(Resumed.Count);
            foreach (ResumedSession session in Resumed) MessageCodec.WritePart(session, writer);
            writer.Put(Field.Formats, Formats);
        }
    }

    public sealed class OpenedMessage : Message, IRequested
    {
        private static readonly Field[] Needed =
        {
            Field.Request, Field.Session, Field.FramesPerStep, Field.Format,
        };

        public long Request { get; set; }
        public long Session;
        public long FramesPerStep;
        public string Format = "";

        public override string Type => "opened";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = Session = 0;
            FramesPerStep = 0;
            Format = "";
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.Session: Session = reader.Id(); return true;
                case Field.FramesPerStep: FramesPerStep = reader.Counted(); return true;
                case Field.Format: Format = reader.Name(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.Put(Field.Session, Session);
            writer.Put(Field.FramesPerStep, FramesPerStep);
            writer.Put(Field.Format, Format);
        }
    }

    /// <summary>Milliseconds that one stage spent for a frame.</summary>
    public struct StageTime
    {
        public string Stage;
        public double Milliseconds;
    }

    /// <summary>One picture; the payload holds its pixels.</summary>
    public sealed class FrameMessage : Message
    {
        private static readonly Field[] Needed =
        {
            Field.Session, Field.Epoch, Field.Index, Field.Format, Field.Height, Field.Width, Field.PositionM,
            Field.QuaternionXyzw, Field.TNs,
        };

        public long Session;
        public long Epoch;
        public long Index;
        public string Format = "";
        public int Height;
        public int Width;

        /// <summary>The camera of this frame, camera to world.</summary>
        public WorldPose Pose;

        /// <summary>The server's clock when it sent the frame.</summary>
        public long TimeNs;

        /// <summary>The newest input that this frame shows in full.</summary>
        public long Ack;

        /// <summary>Frames that the server left out since the last live one.</summary>
        public long Dropped;

        public readonly List<long> MemoryLatents = new List<long>();
        public readonly List<StageTime> Timings = new List<StageTime>();

        /// <summary>Of the reset or step that this frame belongs to; 0 for a live frame.</summary>
        public long Request;

        /// <summary>Whether it can be decoded alone.</summary>
        public bool Key = true;

        public override string Type => "frame";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Session = Epoch = Index = TimeNs = Ack = Dropped = Request = 0;
            Format = "";
            Height = Width = 0;
            Pose = new WorldPose();
            MemoryLatents.Clear();
            Timings.Clear();
            Key = true;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Session: Session = reader.Id(); return true;
                case Field.Epoch: Epoch = reader.Counted(); return true;
                case Field.Index: Index = reader.Counted(); return true;
                case Field.Format: Format = reader.Name(); return true;
                case Field.Height: Height = reader.Small(1, Protocol.MaxSidePixels); return true;
                case Field.Width: Width = reader.Small(1, Protocol.MaxSidePixels); return true;
                case Field.PositionM: Pose.Position = reader.Vec3(); return true;
                case Field.QuaternionXyzw: Pose.Rotation = reader.Quat(); return true;
                case Field.TNs: TimeNs = reader.Whole(); return true;
                case Field.Ack: Ack = reader.Counted(); return true;
                case Field.Dropped: Dropped = reader.Counted(); return true;
                case Field.MemoryLatents: ReadMemory(reader); return true;
                case Field.TimingsMs: ReadTimings(reader); return true;
                case Field.Request: Request = reader.Id(); return true;
                case Field.Key: Key = reader.Bool(); return true;
                default: return false;
            }
        }

        private void ReadMemory(MsgPackReader reader)
        {
            MemoryLatents.Clear();
            for (int left = reader.Array(); left > 0; left--) MemoryLatents.Add(reader.Counted());
        }

        private void ReadTimings(MsgPackReader reader)
        {
            Timings.Clear();
            for (int left = reader.Map(); left > 0; left--)
            {
                string stage = reader.AnyText();
                Timings.Add(new StageTime { Stage = stage, Milliseconds = reader.Real() });
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Session, Session);
            writer.Put(Field.Epoch, Epoch);
            writer.Put(Field.Index, Index);
            writer.Put(Field.Format, Format);
            writer.Put(Field.Height, Height);
            writer.Put(Field.Width, Width);
            writer.Put(Field.PositionM, Pose.Position);
            writer.Put(Field.QuaternionXyzw, Pose.Rotation);
            writer.Put(Field.TNs, TimeNs);
            writer.Put(Field.Ack, Ack);
            writer.Put(Field.Dropped, Dropped);
            writer.Put(Field.MemoryLatents);
            writer.Array(MemoryLatents.Count);
            for (int i = 0; i < MemoryLatents.Count; i++) writer.Int(MemoryLatents[i]);
            WriteTimings(writer);
            writer.PutSome(Field.Request, Request);
            writer.Put(Field.Key, Key);
        }

        private void WriteTimings(MsgPackWriter writer)
        {
            writer.Put(Field.TimingsMs);
            MsgPackWriter.MapMark map = writer.BeginMap();
            for (int i = 0; i < Timings.Count; i++)
            {
                writer.Key(Timings[i].Stage);
                writer.Real(Timings[i].Milliseconds);
            }
            writer.EndMap(map);
        }
    }

    public sealed class DoneMessage : SessionRequest
    {
        private static readonly Field[] Needed =
        {
            Field.Request, Field.Session, Field.Epoch, Field.FramesPerStep,
        };

        public long Epoch;
        public long FramesPerStep;

        public override string Type => "done";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            base.Clear();
            Epoch = 0;
            FramesPerStep = 0;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Epoch: Epoch = reader.Counted(); return true;
                case Field.FramesPerStep: FramesPerStep = reader.Counted(); return true;
                default: return base.Read(field, reader);
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Epoch, Epoch);
            writer.Put(Field.FramesPerStep, FramesPerStep);
        }
    }

    public sealed class SavedMessage : SessionRequest
    {
        private static readonly Field[] Needed = { Field.Request, Field.Session, Field.Size };

        public long Size;

        /// <summary>The name of the kept state; null: the payload is the state.</summary>
        public string State;

        public override string Type => "saved";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            base.Clear();
            Size = 0;
            State = null;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Size: Size = reader.Counted(); return true;
                case Field.State: State = reader.Name(); return true;
                default: return base.Read(field, reader);
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Size, Size);
            writer.PutSome(Field.State, State);
        }
    }

    public sealed class StatusReportMessage : Message, IRequested
    {
        private static readonly Field[] Needed =
        {
            Field.Request, Field.State, Field.Version, Field.Sessions, Field.MaxSessions, Field.UptimeS,
        };

        public long Request { get; set; }
        public string State = "";
        public long Major;
        public long Minor;
        public long Sessions;
        public long MaxSessions;
        public double UptimeSeconds;
        public double PeakMemoryGib;

        /// <summary>How far loading has come, 0 to 1; null if that is not known.</summary>
        public double? Progress;

        /// <summary>What the server is doing, for people; or null.</summary>
        public string Stage;

        /// <summary>Requests that wait.</summary>
        public long Queue;

        public override string Type => "status_report";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = Sessions = MaxSessions = Queue = 0;
            State = "";
            Major = Minor = 0;
            UptimeSeconds = PeakMemoryGib = 0;
            Progress = null;
            Stage = null;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.State: State = reader.Name(); return true;
                case Field.Version: reader.Version(out Major, out Minor); return true;
                case Field.Sessions: Sessions = reader.Counted(); return true;
                case Field.MaxSessions: MaxSessions = reader.Counted(); return true;
                case Field.UptimeS: UptimeSeconds = reader.Real(); return true;
                case Field.PeakMemoryGib: PeakMemoryGib = reader.Real(); return true;
                case Field.Progress: Progress = reader.Real(0, 1); return true;
                case Field.Stage: Stage = reader.AnyText(); return true;
                case Field.Queue: Queue = reader.Counted(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.Put(Field.State, State);
            writer.PutVersion(Major, Minor);
            writer.Put(Field.Sessions, Sessions);
            writer.Put(Field.MaxSessions, MaxSessions);
            writer.Put(Field.UptimeS, UptimeSeconds);
            writer.Put(Field.PeakMemoryGib, PeakMemoryGib);
            if (Progress.HasValue) writer.Put(Field.Progress, Progress.Value);
            writer.PutSome(Field.Stage, Stage);
            writer.Put(Field.Queue, Queue);
        }
    }

    public sealed class PongMessage : Message
    {
        private static readonly Field[] Needed = { Field.TNs, Field.ServerTNs };

        public long TimeNs;
        public long ServerTimeNs;

        public override string Type => "pong";
        internal override Field[] Required => Needed;

        internal override void Clear() => TimeNs = ServerTimeNs = 0;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.TNs: TimeNs = reader.Whole(); return true;
                case Field.ServerTNs: ServerTimeNs = reader.Whole(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.TNs, TimeNs);
            writer.Put(Field.ServerTNs, ServerTimeNs);
        }
    }

    public sealed class ErrorMessage : Message, IRequested
    {
        private static readonly Field[] Needed = { Field.Code, Field.Problem };

        public string Code = "";
        public string Problem = "";
        public string Expected;
        public string Got;
        public string Remedy;
        public long Request { get; set; }
        public long Session;
        public long Seq;

        /// <summary>The session is over; without a session, the connection.</summary>
        public bool Fatal;

        public override string Type => "error";
        internal override Field[] Required => Needed;

        public WorldwireException Exception() => new WorldwireException(Code, Problem, Expected, Got, Remedy);

        internal override void Clear()
        {
            Code = Problem = "";
            Expected = Got = Remedy = null;
            Request = Session = Seq = 0;
            Fatal = false;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Code: Code = reader.Name(); return true;
                case Field.Problem: Problem = reader.AnyText(); return true;
                case Field.Expected: Expected = reader.AnyText(); return true;
                case Field.Got: Got = reader.AnyText(); return true;
                case Field.Remedy: Remedy = reader.AnyText(); return true;
                case Field.Request: Request = reader.Id(); return true;
                case Field.Session: Session = reader.Id(); return true;
                case Field.Seq: Seq = reader.Id(); return true;
                case Field.Fatal: Fatal = reader.Bool(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Code, Code);
            writer.Put(Field.Problem, Problem);
            writer.PutSome(Field.Expected, Expected);
            writer.PutSome(Field.Got, Got);
            writer.PutSome(Field.Remedy, Remedy);
            writer.PutSome(Field.Request, Request);
            writer.PutSome(Field.Session, Session);
            writer.PutSome(Field.Seq, Seq);
            writer.Put(Field.Fatal, Fatal);
        }
    }
}
