namespace Worldwire
{
    /// <summary>
    /// Reads messages. Frames and pongs, which come all the time, are read into objects that are used again;
    /// everything else is a new object. Not for several threads at once.
    /// </summary>
    public sealed class MessageCodec
    {
        private readonly MsgPackReader _reader = new MsgPackReader();
        private readonly PongMessage _pong = new PongMessage();

        /// <summary>
        /// The message in these bytes (part 0). A frame is read into `frame`; a pong is valid until the next call.
        /// WorldwireException: bad_message, and version_mismatch for a hello of another version.
        /// </summary>
        public Message Decode(byte[] data, int offset, int count, FrameMessage frame)
        {
            if (count > Protocol.MaxHeaderBytes)
            {
                throw new WorldwireException(
                    ErrorCode.BadMessage, "part 0 is too large", Protocol.MaxHeaderBytes + " bytes", count + "");
            }
            _reader.Reset(data, offset, count);
            string type = FindType();
            Message message = Create(type, frame);
            if (message is HelloMessage) CheckVersion(offset);
            message.Clear();
            _reader.Position = offset;
            ReadFields(message);
            if (!_reader.AtEnd) throw _reader.Wrong("the end of the message");
            return message;
        }

        internal static void ReadPart(Part part, MsgPackReader reader)
        {
            var seen = new FieldSet();
            for (int left = reader.Map(); left > 0; left--)
            {
                Field field = reader.Key();
                reader.FieldName = Fields.Name(field);
                if (reader.TryNil()) continue;
                if (part.Read(field, reader)) seen.Add(field);
                else reader.Skip();
            }
            Require(part.Required, seen, reader);
        }

        internal static void WritePart(Part part, MsgPackWriter writer)
        {
            MsgPackWriter.MapMark map = writer.BeginMap();
            part.Write(writer);
            writer.EndMap(map);
        }

        private void ReadFields(Message message)
        {
            var seen = new FieldSet();
            int left = _reader.Map();
            _reader.Message = message.Type;
            for (; left > 0; left--)
            {
                _reader.FieldName = "";
                Field field = _reader.Key();
                _reader.FieldName = Fields.Name(field);
                if (_reader.TryNil()) continue;
                if (field != Field.Type && message.Read(field, _reader)) seen.Add(field);
                else _reader.Skip();
            }
            _reader.FieldName = "";
            Require(message.Required, seen, _reader);
        }

        private static void Require(Field[] fields, FieldSet seen, MsgPackReader reader)
        {
            for (int i = 0; i < fields.Length; i++)
            {
                if (!seen.Has(fields[i])) throw reader.Wrong("the field " + Fields.Name(fields[i]));
            }
        }

        /// <summary>The value of `type`: it stands first, but a receiver must take any order.</summary>
        private string FindType() => Find(Field.Type) ? _reader.Text(Protocol.MaxNameCharacters) : null;

        /// <summary>Goes to the value of a field of the map that begins at the reader's position.</summary>
        private bool Find(Field wanted)
        {
            for (int left = _reader.Map(); left > 0; left--)
            {
                if (_reader.Key() == wanted) return true;
                _reader.Skip();
            }
            return false;
        }

        /// <summary>A hello of another version is refused before any other of its fields is looked at.</summary>
        private void CheckVersion(int start)
        {
            _reader.Position = start;
            long major = -1, minor = -1;
            try
            {
                if (Find(Field.Version)) _reader.Version(out major, out minor);
            }
            catch (WorldwireException)
            {
                major = -1;
            }
            if (!Protocol.CanTalkTo(major)) throw VersionMismatch("the server", major, minor);
        }

        /// <summary>Two sides of different majors met; `side` is who says so.</summary>
        public static WorldwireException VersionMismatch(string side, long major, long minor) =>
            new WorldwireException(
                ErrorCode.VersionMismatch,
                side + " speaks another version of the protocol",
                Protocol.Major + "." + Protocol.Minor,
                major < 0 ? "no version" : major + "." + minor,
                "Install the same release of worldwire on both sides.");

        private Message Create(string type, FrameMessage frame)
        {
            switch (type)
            {
                case "frame": return frame;
                case "pong": return _pong;
                case "done": return new DoneMessage();
                case "welcome": return new WelcomeMessage();
                case "opened": return new OpenedMessage();
                case "saved": return new SavedMessage();
                case "status_report": return new StatusReportMessage();
                case "error": return new ErrorMessage();
                case "bye": return new ByeMessage();
                case "hello": return new HelloMessage();
                case "open": return new OpenMessage();
                case "reset": return new ResetMessage();
                case "step": return new StepMessage();
                case "prompt": return new PromptMessage();
                case "start": return new StartMessage();
                case "pause": return new PauseMessage();
                case "input": return new InputMessage();
                case "credit": return new CreditMessage();
                case "save": return new SaveMessage();
                case "restore": return new RestoreMessage();
                case "branch": return new BranchMessage();
                case "close": return new CloseMessage();
                case "status": return new StatusMessage();
                case "ping": return new PingMessage();
                default:
                    throw new WorldwireException(
                        ErrorCode.BadMessage, "unknown message type", got: type ?? "no type",
                        remedy: "Compare both sides' protocol versions.");
            }
        }
    }
}
