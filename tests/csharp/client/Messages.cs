using System;
using System.Collections.Generic;

namespace Worldwire.Tests
{
    /// <summary>
    /// Messages from the fields that a golden vector names: written by hand, so that no field is mistaken.
    /// </summary>
    internal static class Messages
    {
        internal static Message Of(object json)
        {
            string type = (string)Json.Get(json, "type");
            switch (type)
            {
                case "hello":
                    var hello = new HelloMessage { Request = Id(json), Client = Text(json, "client") };
                    hello.Major = Whole(json, "version", 0);
                    hello.Minor = Whole(json, "version", 1);
                    hello.Resume = Text(json, "resume");
                    return hello;
                case "open":
                    var open = new OpenMessage { Request = Id(json), Plan = Text(json, "plan") };
                    Copy(json, "formats", open.Formats);
                    open.JpegQuality = (int)Whole(json, "jpeg_quality");
                    return open;
                case "reset":
                    return new ResetMessage
                    {
                        Request = Id(json), Session = Session(json), Seed = Whole(json, "seed"),
                        View = Text(json, "view"), Prompt = Text(json, "prompt"), Image = Text(json, "image"),
                        ImageHeight = (int)Whole(json, "image_height"), ImageWidth = (int)Whole(json, "image_width"),
                    };
                case "step":
                    var step = new StepMessage { Request = Id(json), Session = Session(json) };
                    foreach (object item in (List<object>)Json.Get(json, "inputs")) step.Inputs.Add(Control(item));
                    return step;
                case "prompt":
                    return new PromptMessage
                    {
                        Request = Id(json), Session = Session(json), Prompt = Text(json, "prompt"),
                    };
                case "start":
                    return new StartMessage
                    {
                        Request = Id(json), Session = Session(json), Window = (int)Whole(json, "window"),
                    };
                case "pause": return new PauseMessage { Request = Id(json), Session = Session(json) };
                case "branch": return new BranchMessage { Request = Id(json), Session = Session(json) };
                case "close": return new CloseMessage { Request = Id(json), Session = Session(json) };
                case "input":
                    return new InputMessage
                    {
                        Control = Control(json), Session = Session(json), Seq = Whole(json, "seq"),
                    };
                case "credit":
                    return new CreditMessage { Session = Session(json), Frames = (int)Whole(json, "frames") };
                case "save":
                    return new SaveMessage { Request = Id(json), Session = Session(json), Keep = Flag(json, "keep") };
                case "restore":
                    return new RestoreMessage
                    {
                        Request = Id(json), Session = Session(json), State = Text(json, "state"),
                    };
                case "status": return new StatusMessage { Request = Id(json) };
                case "ping": return new PingMessage { TimeNs = Whole(json, "t_ns") };
                case "bye": return new ByeMessage { Reason = Text(json, "reason"), Resume = Flag(json, "resume") };
                default: return OfServer(type, json);
            }
        }

        private static Message OfServer(string type, object json)
        {
            switch (type)
            {
                case "welcome": return Welcome(json);
                case "opened":
                    return new OpenedMessage
                    {
                        Request = Id(json), Session = Session(json),
                        FramesPerStep = Whole(json, "frames_per_step"), Format = Text(json, "format"),
                    };
                case "frame": return Frame(json);
                case "done":
                    return new DoneMessage
                    {
                        Request = Id(json), Session = Session(json), Epoch = Whole(json, "epoch"),
                        FramesPerStep = Whole(json, "frames_per_step"),
                    };
                case "saved":
                    return new SavedMessage
                    {
                        Request = Id(json), Session = Session(json), Size = Whole(json, "size"),
                        State = Text(json, "state"),
                    };
                case "status_report": return Report(json);
                case "pong":
                    return new PongMessage { TimeNs = Whole(json, "t_ns"), ServerTimeNs = Whole(json, "server_t_ns") };
                case "error":
                    return new ErrorMessage
                    {
                        Code = Text(json, "code"), Problem = Text(json, "problem"), Expected = Text(json, "expected"),
                        Got = Text(json, "got"), Remedy = Text(json, "remedy"), Request = Id(json),
                        Session = Session(json), Seq = Whole(json, "seq"), Fatal = Flag(json, "fatal"),
                    };
                default: throw new InvalidOperationException("no such message here: " + type);
            }
        }

        private static Message Welcome(object json)
        {
            var welcome = new WelcomeMessage { Request = Id(json), Server = Text(json, "server") };
            welcome.Major = Whole(json, "version", 0);
            welcome.Minor = Whole(json, "version", 1);
            welcome.Token = Text(json, "token");
            Copy(json, "formats", welcome.Formats);
            FillWorld(Json.Get(json, "world"), welcome.World);
            FillLimits(Json.Get(json, "limits"), welcome.Limits);
            foreach (object item in (List<object>)Json.Get(json, "resumed"))
            {
                welcome.Resumed.Add(new ResumedSession
                {
                    Session = Session(item), Epoch = Whole(item, "epoch"), Seq = Whole(item, "seq"),
                    FramesPerStep = Whole(item, "frames_per_step"), Format = Text(item, "format"),
                });
            }
            return welcome;
        }

        private static void FillWorld(object json, WorldInfo world)
        {
            world.Name = Text(json, "name");
            world.Height = (int)Whole(json, "height");
            world.Width = (int)Whole(json, "width");
            world.FramesPerSecond = Real(json, "frames_per_second");
            world.FramesPerStep = Whole(json, "frames_per_step");
            world.HorizontalFovDeg = Real(json, "horizontal_fov_deg");
            Copy(json, "trained_keys", world.TrainedKeys);
            Copy(json, "views", world.Views);
            Copy(json, "seed_images", world.SeedImages);
            var writer = new MsgPackWriter();
            Json.Pack(Json.Get(json, "extra"), writer);
            world.Extra = writer.ToArray();
        }

        private static void FillLimits(object json, Limits limits)
        {
            limits.MessageBytes = Whole(json, "message_bytes");
            limits.Sessions = Whole(json, "sessions");
            limits.MessagesPerSecond = Whole(json, "messages_per_second");
            limits.QueuedRequests = Whole(json, "queued_requests");
            limits.KeptStates = Whole(json, "kept_states");
            limits.KeptBytes = Whole(json, "kept_bytes");
            limits.HeartbeatSeconds = Real(json, "heartbeat_s");
            limits.LivenessSeconds = Real(json, "liveness_s");
            limits.ResumeSeconds = Real(json, "resume_s");
        }

        private static Message Frame(object json)
        {
            var frame = new FrameMessage
            {
                Session = Session(json), Epoch = Whole(json, "epoch"), Index = Whole(json, "index"),
                Format = Text(json, "format"), Height = (int)Whole(json, "height"), Width = (int)Whole(json, "width"),
                Pose = Pose(json), TimeNs = Whole(json, "t_ns"), Ack = Whole(json, "ack"),
                Dropped = Whole(json, "dropped"), Request = Id(json), Key = Flag(json, "key"),
            };
            var latents = (List<object>)Json.Get(json, "memory_latents");
            foreach (object latent in latents) frame.MemoryLatents.Add((long)latent);
            foreach (var pair in (List<KeyValuePair<string, object>>)Json.Get(json, "timings_ms"))
            {
                frame.Timings.Add(new StageTime { Stage = pair.Key, Milliseconds = (double)pair.Value });
            }
            return frame;
        }

        private static Message Report(object json)
        {
            var report = new StatusReportMessage { Request = Id(json), State = Text(json, "state") };
            report.Major = Whole(json, "version", 0);
            report.Minor = Whole(json, "version", 1);
            report.Sessions = Whole(json, "sessions");
            report.MaxSessions = Whole(json, "max_sessions");
            report.UptimeSeconds = Real(json, "uptime_s");
            report.PeakMemoryGib = Real(json, "peak_memory_gib");
            report.Progress = (double?)Json.Get(json, "progress");
            report.Stage = Text(json, "stage");
            report.Queue = Whole(json, "queue");
            return report;
        }

        private static Control Control(object json)
        {
            var control = new Control { YawDeg = Real(json, "look_deg", 0), PitchDeg = Real(json, "look_deg", 1) };
            foreach (object key in (List<object>)Json.Get(json, "keys")) control.Keys |= KeyNames.Parse((string)key);
            control.HasPose = Json.Get(json, "position_m") != null;
            if (control.HasPose) control.Pose = Pose(json);
            return control;
        }

        private static WorldPose Pose(object json) => new WorldPose(
            new Vec3(Real(json, "position_m", 0), Real(json, "position_m", 1), Real(json, "position_m", 2)),
            new Quat(
                Real(json, "quaternion_xyzw", 0), Real(json, "quaternion_xyzw", 1),
                Real(json, "quaternion_xyzw", 2), Real(json, "quaternion_xyzw", 3)));

        private static long Id(object json) => Whole(json, "request");

        private static long Session(object json) => Whole(json, "session");

        private static string Text(object json, string name) => (string)Json.Get(json, name);

        private static bool Flag(object json, string name) => (bool)Json.Get(json, name);

        private static long Whole(object json, string name) => (long)(Json.Get(json, name) ?? 0L);

        private static long Whole(object json, string name, int index) =>
            (long)((List<object>)Json.Get(json, name))[index];

        private static double Real(object json, string name) => (double)Json.Get(json, name);

        private static double Real(object json, string name, int index) =>
            (double)((List<object>)Json.Get(json, name))[index];

        private static void Copy(object json, string name, List<string> into)
        {
            into.Clear();
            foreach (object item in (List<object>)Json.Get(json, name)) into.Add((string)item);
        }
    }
}
