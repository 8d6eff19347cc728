using System;
using System.Collections.Generic;

namespace Worldwire
{
    /// <summary>A message about one session that the server answers.</summary>
    public abstract class SessionRequest : Message, IRequested
    {
        private static readonly Field[] Needed = { Field.Request, Field.Session };

        public long Request { get; set; }
        public long Session;

        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = 0;
            Session = 0;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.Session: Session = reader.Id(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.Put(Field.Session, Session);
        }
    }

    public sealed class HelloMessage : Message, IRequested
    {
        private static readonly Field[] Needed = { Field.Request, Field.Version, Field.Client };

        public long Request { get; set; }
        public long Major = Protocol.Major;
        public long Minor = Protocol.Minor;
        public string Client = "";
        public string Resume;

        public override string Type => "hello";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = 0;
            Major = Protocol.Major;
            Minor = Protocol.Minor;
            Client = "";
            Resume = null;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.Version: reader.Version(out Major, out Minor); return true;
                case Field.Client: Client = reader.Name(); return true;
                case Field.Resume: Resume = reader.Name(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.PutVersion(Major, Minor);
            writer.Put(Field.Client, Client);
            writer.PutSome(Field.Resume, Resume);
        }
    }

    public sealed class OpenMessage : Message, IRequested
    {
        private static readonly Field[] Needed = { Field.Request };

        public long Request { get; set; }
        public string Plan;
        public readonly List<string> Formats = new List<string> { FrameFormat.Rgb };
        public int JpegQuality = Protocol.DefaultJpegQuality;

        public override string Type => "open";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Request = 0;
            Plan = null;
            Formats.Clear();
            Formats.Add(FrameFormat.Rgb);
            JpegQuality = Protocol.DefaultJpegQuality;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Request: Request = reader.Id(); return true;
                case Field.Plan: Plan = reader.Name(); return true;
                case Field.Formats: reader.Texts(Formats, 1, Protocol.MaxFormats); return true;
                case Field.JpegQuality: JpegQuality = reader.Small(1, 100); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Request, Request);
            writer.PutSome(Field.Plan, Plan);
            writer.Put(Field.Formats, Formats);
            writer.Put(Field.JpegQuality, JpegQuality);
        }
    }

    public sealed class ResetMessage : SessionRequest
    {
        public long Seed;
        public string View;
        public string Prompt;
        public string Image;
        public int ImageHeight;
        public int ImageWidth;

        public override string Type => "reset";

        internal override void Clear()
        {
            base.Clear();
            Seed = 0;
            View = Prompt = Image = null;
            ImageHeight = ImageWidth = 0;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Seed: Seed = reader.Whole(); return true;
                case Field.View: View = reader.Name(); return true;
                case Field.Prompt: Prompt = reader.Text(Protocol.MaxPromptCharacters); return true;
                case Field.Image: Image = reader.Name(); return true;
                case Field.ImageHeight: ImageHeight = reader.Small(1, Protocol.MaxSidePixels); return true;
                case Field.ImageWidth: ImageWidth = reader.Small(1, Protocol.MaxSidePixels); return true;
                default: return base.Read(field, reader);
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Seed, Seed);
            writer.PutSome(Field.View, View);
            writer.PutSome(Field.Prompt, Prompt);
            writer.PutSome(Field.Image, Image);
            writer.PutSome(Field.ImageHeight, ImageHeight);
            writer.PutSome(Field.ImageWidth, ImageWidth);
        }
    }

    /// <summary>What leads to one frame: held keys, a turn in degrees, or a camera pose.</summary>
    public struct Control
    {
        public Keys Keys;

        /// <summary>+ turns right.</summary>
        public double YawDeg;

        /// <summary>+ looks up.</summary>
        public double PitchDeg;

        public bool HasPose;
        public WorldPose Pose;

        internal bool Read(Field field, MsgPackReader reader, ref bool half)
        {
            switch (field)
            {
                case Field.Keys: Keys = KeyNames.Read(reader); return true;
                case Field.LookDeg:
                    reader.Shape(2);
                    YawDeg = reader.Real();
                    PitchDeg = reader.Real();
                    return true;
                case Field.PositionM: Pose.Position = reader.Vec3(); break;
                case Field.QuaternionXyzw: Pose.Rotation = reader.Quat(); break;
                default: return false;
            }
            HasPose = half;
            half = !half;
            return true;
        }

        internal void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Keys);
            KeyNames.Write(writer, Keys);
            writer.Put(Field.LookDeg);
            writer.Array(2);
            writer.Real(YawDeg);
            writer.Real(PitchDeg);
            if (!HasPose) return;
            writer.Put(Field.PositionM, Pose.Position);
            writer.Put(Field.QuaternionXyzw, Pose.Rotation);
        }
    }

    public sealed class StepMessage : SessionRequest
    {
        private static readonly Field[] Needed = { Field.Request, Field.Session, Field.Inputs };

        public readonly List<Control> Inputs = new List<Control>();

        public override string Type => "step";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            base.Clear();
            Inputs.Clear();
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.Inputs) return base.Read(field, reader);
            Inputs.Clear();
            int count = reader.Array();
            if (count < 1 || count > Protocol.MaxStepFrames) throw reader.Wrong("a list of 1 to 4096 entries");
            for (int i = 0; i < count; i++) Inputs.Add(ReadControl(reader));
            return true;
        }

        private static Control ReadControl(MsgPackReader reader)
        {
            var control = new Control();
            bool half = false;
            for (int left = reader.Map(); left > 0; left--)
            {
                Field field = reader.Key();
                if (reader.TryNil()) continue;
                if (!control.Read(field, reader, ref half)) reader.Skip();
            }
            return control;
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Inputs);
            writer.Array(Inputs.Count);
            for (int i = 0; i < Inputs.Count; i++)
            {
                MsgPackWriter.MapMark map = writer.BeginMap();
                Inputs[i].Write(writer);
                writer.EndMap(map);
            }
        }
    }

    public sealed class StartMessage : SessionRequest
    {
        private static readonly Field[] Needed = { Field.Request, Field.Session, Field.Window };

        public int Window = 1;

        public override string Type => "start";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            base.Clear();
            Window = 1;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.Window) return base.Read(field, reader);
            Window = reader.Small(1, Protocol.MaxWindowFrames);
            return true;
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Window, Window);
        }
    }

    public sealed class PauseMessage : SessionRequest
    {
        public override string Type => "pause";
    }

    public sealed class BranchMessage : SessionRequest
    {
        public override string Type => "branch";
    }

    public sealed class CloseMessage : SessionRequest
    {
        public override string Type => "close";
    }

    public sealed class PromptMessage : SessionRequest
    {
        private static readonly Field[] Needed = { Field.Request, Field.Session, Field.Prompt };

        public string Prompt = "";

        public override string Type => "prompt";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            base.Clear();
            Prompt = "";
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.Prompt) return base.Read(field, reader);
            Prompt = reader.Text(Protocol.MaxPromptCharacters);
            return true;
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Prompt, Prompt);
        }
    }

    public sealed class SaveMessage : SessionRequest
    {
        public bool Keep;

        public override string Type => "save";

        internal override void Clear()
        {
            base.Clear();
            Keep = false;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.Keep) return base.Read(field, reader);
            Keep = reader.Bool();
            return true;
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.Put(Field.Keep, Keep);
        }
    }

    public sealed class RestoreMessage : SessionRequest
    {
        /// <summary>The name of a kept state; null: the payload is the state.</summary>
        public string State;

        public override string Type => "restore";

        internal override void Clear()
        {
            base.Clear();
            State = null;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.State) return base.Read(field, reader);
            State = reader.Name();
            return true;
        }

        internal override void Write(MsgPackWriter writer)
        {
            base.Write(writer);
            writer.PutSome(Field.State, State);
        }
    }

    public sealed class InputMessage : Message
    {
        private static readonly Field[] Needed = { Field.Session, Field.Seq };

        public Control Control;
        public long Session;
        public long Seq;
        private bool _half;

        public override string Type => "input";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Control = new Control();
            Session = Seq = 0;
            _half = false;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Session: Session = reader.Id(); return true;
                case Field.Seq: Seq = reader.Id(); return true;
                default: return Control.Read(field, reader, ref _half);
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            Control.Write(writer);
            writer.Put(Field.Session, Session);
            writer.Put(Field.Seq, Seq);
        }
    }

    public sealed class CreditMessage : Message
    {
        private static readonly Field[] Needed = { Field.Session, Field.Frames };

        public long Session;
        public int Frames;

        public override string Type => "credit";
        internal override Field[] Required => Needed;

        internal override void Clear()
        {
            Session = 0;
            Frames = 0;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Session: Session = reader.Id(); return true;
                case Field.Frames: Frames = reader.Small(1, Protocol.MaxWindowFrames); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Session, Session);
            writer.Put(Field.Frames, Frames);
        }
    }

    public sealed class StatusMessage : Message, IRequested
    {
        private static readonly Field[] Needed = { Field.Request };

        public long Request { get; set; }

        public override string Type => "status";
        internal override Field[] Required => Needed;

        internal override void Clear() => Request = 0;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.Request) return false;
            Request = reader.Id();
            return true;
        }

        internal override void Write(MsgPackWriter writer) => writer.Put(Field.Request, Request);
    }

    public sealed class PingMessage : Message
    {
        private static readonly Field[] Needed = { Field.TNs };

        public long TimeNs;

        public override string Type => "ping";
        internal override Field[] Required => Needed;

        internal override void Clear() => TimeNs = 0;

        internal override bool Read(Field field, MsgPackReader reader)
        {
            if (field != Field.TNs) return false;
            TimeNs = reader.Whole();
            return true;
        }

        internal override void Write(MsgPackWriter writer) => writer.Put(Field.TNs, TimeNs);
    }

    /// <summary>Both ways: the sender goes.</summary>
    public sealed class ByeMessage : Message
    {
        public string Reason = "";

        /// <summary>Of a server: the sessions of this connection wait for a hello with the token.</summary>
        public bool Resume;

        public override string Type => "bye";

        internal override void Clear()
        {
            Reason = "";
            Resume = false;
        }

        internal override bool Read(Field field, MsgPackReader reader)
        {
            switch (field)
            {
                case Field.Reason: Reason = reader.AnyText(); return true;
                case Field.Resume: Resume = reader.Bool(); return true;
                default: return false;
            }
        }

        internal override void Write(MsgPackWriter writer)
        {
            writer.Put(Field.Reason, Reason);
            writer.Put(Field.Resume, Resume);
        }
    }
}
