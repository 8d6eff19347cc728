using System.Text;

namespace Worldwire
{
    /// <summary>Every field name of the protocol.</summary>
    internal enum Field
    {
        Unknown,
        Type,
        Request,
        Version,
        Client,
        Resume,
        Plan,
        Formats,
        JpegQuality,
        Session,
        Seed,
        View,
        Prompt,
        Image,
        ImageHeight,
        ImageWidth,
        Inputs,
        Window,
        Keys,
        LookDeg,
        PositionM,
        QuaternionXyzw,
        Seq,
        Frames,
        Keep,
        State,
        TNs,
        Reason,
        Server,
        World,
        Limits,
        Token,
        Resumed,
        Name,
        Height,
        Width,
        FramesPerSecond,
        FramesPerStep,
        HorizontalFovDeg,
        TrainedKeys,
        Views,
        SeedImages,
        Extra,
        MessageBytes,
        Sessions,
        MessagesPerSecond,
        QueuedRequests,
        KeptStates,
        KeptBytes,
        HeartbeatS,
        LivenessS,
        ResumeS,
        Format,
        Epoch,
        Index,
        Ack,
        Dropped,
        MemoryLatents,
        TimingsMs,
        Key,
        Size,
        MaxSessions,
        UptimeS,
        PeakMemoryGib,
        Progress,
        Stage,
        Queue,
        ServerTNs,
        Code,
        Problem,
        Expected,
        Got,
        Remedy,
        Fatal,
    }

    /// <summary>The names of the fields on the wire, in the order of the enum, and the way back.</summary>
    internal static class Fields
    {
        private const int TableSize = 256;

        private static readonly string[] Names =
        {
            "",
            "type",
            "request",
            "version",
            "client",
            "resume",
            "plan",
            "formats",
            "jpeg_quality",
            "session",
            "seed",
            "view",
            "prompt",
            "image",
            "image_height",
            "image_width",
            "inputs",
            "window",
            "keys",
            "look_deg",
            "position_m",
            "quaternion_xyzw",
            "seq",
            "frames",
            "keep",
            "state",
            "t_ns",
            "reason",
            "server",
            "world",
            "limits",
            "token",
            "resumed",
            "name",
            "height",
            "width",
            "frames_per_second",
            "frames_per_step",
            "horizontal_fov_deg",
            "trained_keys",
            "views",
            "seed_images",
            "extra",
            "message_bytes",
            "sessions",
            "messages_per_second",
            "queued_requests",
            "kept_states",
            "kept_bytes",
            "heartbeat_s",
            "liveness_s",
            "resume_s",
            "format",
            "epoch",
            "index",
            "ack",
            "dropped",
            "memory_latents",
            "timings_ms",
            "key",
            "size",
            "max_sessions",
            "uptime_s",
            "peak_memory_gib",
            "progress",
            "stage",
            "queue",
            "server_t_ns",
            "code",
            "problem",
            "expected",
            "got",
            "remedy",
            "fatal",
        };

        private static readonly byte[][] Encoded = EncodeAll();
        private static readonly byte[] Table = BuildTable();

        internal static string Name(Field field) => Names[(int)field];

        /// <summary>The name as msgpack: a text shorter than 32 bytes.</summary>
        internal static readonly byte[][] Packed = PackAll();

        /// <summary>The field of this name, or Unknown.</summary>
        internal static Field Find(byte[] data, int offset, int count)
        {
            uint place = TextCache.Hash(data, offset, count) % TableSize;
            while (Table[place] != 0)
            {
                if (TextCache.Same(Encoded[Table[place]], data, offset, count)) return (Field)Table[place];
                place = (place + 1) % TableSize;
            }
            return Field.Unknown;
        }

        private static byte[][] EncodeAll()
        {
            var all = new byte[Names.Length][];
            for (int i = 0; i < all.Length; i++) all[i] = Encoding.ASCII.GetBytes(Names[i]);
            return all;
        }

        private static byte[][] PackAll()
        {
            var all = new byte[Names.Length][];
            var writer = new MsgPackWriter();
            for (int i = 0; i < all.Length; i++)
            {
                writer.Clear();
                writer.Text(Names[i]);
                all[i] = writer.ToArray();
            }
            return all;
        }

        private static byte[] BuildTable()
        {
            var table = new byte[TableSize];
            for (int i = 1; i < Names.Length; i++)
            {
                uint place = TextCache.Hash(Encoded[i], 0, Encoded[i].Length) % TableSize;
                while (table[place] != 0) place = (place + 1) % TableSize;
                table[place] = (byte)i;
            }
            return table;
        }
    }
}
