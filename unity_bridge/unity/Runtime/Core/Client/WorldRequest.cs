namespace Worldwire
{
    /// <summary>
    /// A question to the server and, once IsDone, its answer or why there is none. It makes progress in
    /// WorldClient.Update.
    /// </summary>
    public sealed class WorldRequest
    {
        internal WorldRequest(string what, long id)
        {
            What = what;
            Id = id;
        }

        /// <summary>The type of the question.</summary>
        public string What { get; }

        public bool IsDone { get; private set; }

        /// <summary>Why it failed; null if it did not.</summary>
        public WorldwireException Error { get; private set; }

        /// <summary>done, opened, saved, status_report; null if it failed.</summary>
        public Message Answer { get; private set; }

        /// <summary>The saved state, if that was asked for.</summary>
        public byte[] Payload { get; private set; }

        /// <summary>The session that was opened or branched.</summary>
        public WorldSession Session { get; internal set; }

        /// <summary>The name of a state that the server keeps.</summary>
        public string State => (Answer as SavedMessage)?.State;

        internal long Id { get; }

        internal long SentNs { get; set; }

        internal void Succeed(Message answer, byte[] payload)
        {
            Answer = answer;
            Payload = payload;
            IsDone = true;
        }

        internal void Fail(WorldwireException error)
        {
            Error = error;
            IsDone = true;
        }
    }
}
